"""The stage `autoencoder`: kept clip files to a trained (or named) autoencoder.

Reads the clip files of every batch; a file that does not read is left out and counted, never fatal.  The
checkpoint folder is diffusers' own layout, so `AutoencoderKLWan.from_pretrained` loads it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.execute import Context, Output, RunLog
from schemas.checkpoints import AUTOENCODER_CHECKPOINT, Checkpoint
from schemas.clips import CLIP_FILES
from schemas.errors import MissingTable, ModelError
from schemas.ids import canonical_json, digest
from schemas.store import Store
from trainer.autoencoder.model import compression, load
from trainer.autoencoder.pictures import Unfit, prepare, read
from trainer.autoencoder.quality import measure
from trainer.autoencoder.train import train
from trainer.checkpoint import Snapshots, file_digest, knows_of, run_folder, write_card
from trainer.config import AutoencoderSettings
from trainer.determinism import deterministic
from trainer.shapes import Compression

WEIGHTS = "diffusion_pytorch_model.safetensors"
SHEET = "reconstructions.jpg"


def run(context: Context) -> Output:
    """Train, or load the pretrained one; measure; publish."""
    settings: AutoencoderSettings = context.settings
    config = settings.autoencoder
    rows = sorted(context.read(CLIP_FILES).to_pylist(), key=lambda r: r["clip_id"])
    if config.pretrained:
        model = load(config.pretrained)
        sizes = compression(model, settings.shape.patch)
        clips, unread = _read(context.store, rows[:32], settings, sizes)
        facts: dict[str, Any] = {"pretrained": config.pretrained, "knows": "general", "steps": 0}
        held = list(clips.values())
        data = "general"
    else:
        sizes = config.compression(settings.shape.patch)
        if config.start_from:
            sizes = compression(load(config.start_from), settings.shape.patch)
        clips, unread = _read(context.store, rows, settings, sizes)
        if not clips:
            raise ModelError("no clip file could be read to train the autoencoder on; look at table `clip_files`")
        held_ids = _held_out(sorted(clips), config.held_out)
        data = digest([(c, clips[c].shape) for c in sorted(clips)])
        key = digest(context.made_by, data)
        snapshots = Snapshots(run_folder(context.store, "autoencoder", key), config.snapshot_every_s)
        seen = {c: v for c, v in clips.items() if c not in held_ids}
        with deterministic(config.threads), RunLog(context.store, "autoencoder", key, snapshots.latest()[0]) as log:
            model, loss = train(config, seen, snapshots, log.add)
        knows = knows_of(context.store, context.store.batches(CLIP_FILES))
        facts = {"knows": knows, "steps": config.steps, "clips": len(seen), "loss": loss}
        if config.start_from:
            facts["start_from"] = config.start_from
        held = [clips[c] for c in sorted(held_ids)] or list(clips.values())[:8]
    with deterministic(config.threads):
        quality = measure(model, held)
    if quality is not None:
        facts |= {"psnr_held_out": quality.psnr, "ssim_held_out": quality.ssim}
        facts["psnr_held_out_pictures"] = quality.psnr_first_frame
    facts["clips_held_out"] = len(held)
    facts["clips_unread"] = unread
    checkpoint = _publish(context, model, facts, data, quality.sheet if quality else b"")
    if not config.pretrained:
        snapshots.clear()
    pictures = {"reconstructions": quality.sheet} if quality else {}
    metrics = {k: v for k, v in facts.items() if v is not None}
    return Output({AUTOENCODER_CHECKPOINT.name: checkpoint}, metrics=metrics, pictures=pictures)


def _held_out(clip_ids: list[str], share: float) -> set[str]:
    """A share of the clips, by id; at least one stays to train on."""
    count = min(len(clip_ids) - 1, round(len(clip_ids) * share))
    return set(sorted(clip_ids, key=lambda c: digest("held out", c))[:count])


def _read(
    store: Store, rows: list[dict[str, Any]], settings: AutoencoderSettings, sizes: Compression
) -> tuple[dict[str, np.ndarray], int]:
    """Pictures by clip id, and how many files gave none."""
    rows = sorted(rows, key=lambda r: digest("autoencoder clip", r["clip_id"]))[: settings.autoencoder.max_clips]
    clips: dict[str, np.ndarray] = {}
    for row in rows:
        if row["status"] != "ok":
            continue
        try:
            plan = prepare(row["num_frames"], row["fps"], row["width"], row["height"], settings.shape, sizes)
            clips[row["clip_id"]] = read(store.fetch(row["path"]), plan)
        except (Unfit, MissingTable, OSError, ValueError):  # counted as unread; `latents` gives each its reason
            continue
    return clips, len(rows) - len(clips)


def _publish(context: Context, model: Any, facts: dict[str, Any], data: str, sheet: bytes) -> pa.Table:
    folder = Path(context.store.scratch())
    model.save_pretrained(folder, safe_serialization=True)
    name = _digest(folder)
    notes = ["Causal 3-D VAE, diffusers layout."]
    if sheet:
        (folder / SHEET).write_bytes(sheet)
        notes.append(f"`{SHEET}`: clips that were held out, above what came back of them.")
    write_card(folder, "Video autoencoder", {**facts, "trained_on": data}, notes)
    path = context.store.publish_folder(folder, "checkpoints", "autoencoder", name)
    row = Checkpoint(
        digest=name,
        kind="autoencoder",
        path=path,
        knows=facts["knows"],
        trained_on=data,
        steps=facts["steps"],
        metrics=canonical_json({k: v for k, v in facts.items() if isinstance(v, (int, float))}),
        made_by=context.made_by,
    )
    return AUTOENCODER_CHECKPOINT.from_rows([row])


def loaded(store: Store, row: dict[str, Any]) -> Any:
    """The autoencoder of a checkpoint row.

    Raises:
        ModelError: If its folder is not what the row says.
    """
    folder = store.fetch(row["path"])
    try:
        found = _digest(Path(folder))
    except (OSError, ValueError) as e:
        raise ModelError(f"checkpoint {row['path']} does not read ({e}); delete it and run `autoencoder` again") from e
    if found != row["digest"]:
        raise ModelError(f"checkpoint {row['path']} is not what its digest says; delete it and run `autoencoder` again")
    return load(folder)


def _digest(folder: Path) -> str:
    """Of weights and config; diffusers' private keys hold its version and paths."""
    config = json.loads((folder / "config.json").read_text())
    public = {k: v for k, v in config.items() if not k.startswith("_")}
    return file_digest(folder / WEIGHTS, canonical_json(public))
