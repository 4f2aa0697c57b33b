"""The stage `autoencoder`: kept clip files to a trained (or named) autoencoder.

Reads the clip files of every batch; a file that does not read is left out and counted, never fatal.  The
checkpoint folder is diffusers' own layout, so `AutoencoderKLWan.from_pretrained` loads it.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.execute import Context, Output
from schemas.checkpoints import AUTOENCODER_CHECKPOINT, Checkpoint
from schemas.clips import CLIP_FILES
from schemas.errors import MissingTable, ModelError
from schemas.ids import canonical_json, digest
from schemas.store import Store
from trainer.autoencoder.model import load
from trainer.autoencoder.pictures import Unfit, prepare, read
from trainer.autoencoder.train import measure, train
from trainer.checkpoint import Snapshots, file_digest, knows_of, run_folder, write_card
from trainer.config import AutoencoderSettings
from trainer.determinism import deterministic

WEIGHTS = "diffusion_pytorch_model.safetensors"


def run(context: Context) -> Output:
    """Train, or load the pretrained one; measure; publish."""
    settings: AutoencoderSettings = context.settings
    rows = sorted(context.read(CLIP_FILES).to_pylist(), key=lambda r: r["clip_id"])
    if settings.autoencoder.pretrained:
        model = load(settings.autoencoder.pretrained)
        clips, unread = _read(context.store, rows[:32], settings)
        facts: dict[str, Any] = {"pretrained": settings.autoencoder.pretrained, "knows": "general", "steps": 0}
        held = list(clips.values())
        data = "general"
    else:
        clips, unread = _read(context.store, rows, settings)
        if not clips:
            raise ModelError("no clip file could be read to train the autoencoder on; look at table `clip_files`")
        held_ids = _held_out(sorted(clips), settings.autoencoder.held_out)
        data = digest([(c, clips[c].shape) for c in sorted(clips)])
        key = digest(context.made_by, data)
        snapshots = Snapshots(run_folder(context.store, "autoencoder", key), settings.autoencoder.snapshot_every_s)
        with deterministic(settings.autoencoder.threads):
            model, loss = train(settings.autoencoder, {c: v for c, v in clips.items() if c not in held_ids}, snapshots)
        knows = knows_of(context.store, context.store.batches(CLIP_FILES))
        facts = {"knows": knows, "steps": settings.autoencoder.steps, "clips": len(clips) - len(held_ids), "loss": loss}
        held = [clips[c] for c in sorted(held_ids)] or list(clips.values())[:8]
    with deterministic(settings.autoencoder.threads):
        facts["psnr_held_out"] = measure(model, held)
    facts["clips_held_out"] = len(held)
    facts["clips_unread"] = unread
    checkpoint = _publish(context, model, facts, data)
    if not settings.autoencoder.pretrained:
        snapshots.clear()
    return Output({AUTOENCODER_CHECKPOINT.name: checkpoint}, metrics={k: v for k, v in facts.items() if v is not None})


def _held_out(clip_ids: list[str], share: float) -> set[str]:
    """A share of the clips, by id; at least one stays to train on."""
    count = min(len(clip_ids) - 1, round(len(clip_ids) * share))
    return set(sorted(clip_ids, key=lambda c: digest("held out", c))[:count])


def _read(store: Store, rows: list[dict[str, Any]], settings: AutoencoderSettings) -> tuple[dict[str, np.ndarray], int]:
    """Pictures by clip id, and how many files gave none."""
    compression = settings.autoencoder.compression(settings.shape.patch)
    rows = sorted(rows, key=lambda r: digest("autoencoder clip", r["clip_id"]))[: settings.autoencoder.max_clips]
    clips: dict[str, np.ndarray] = {}
    for row in rows:
        if row["status"] != "ok":
            continue
        try:
            plan = prepare(row["num_frames"], row["fps"], row["width"], row["height"], settings.shape, compression)
            clips[row["clip_id"]] = read(store.fetch(row["path"]), plan)
        except (Unfit, MissingTable, OSError, ValueError):  # counted as unread; `latents` gives each its reason
            continue
    return clips, len(rows) - len(clips)


def _publish(context: Context, model: Any, facts: dict[str, Any], data: str) -> pa.Table:
    folder = Path(context.store.scratch())
    model.save_pretrained(folder, safe_serialization=True)
    name = _digest(folder)
    write_card(folder, "Video autoencoder", {**facts, "trained_on": data}, ["Causal 3-D VAE, diffusers layout."])
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
