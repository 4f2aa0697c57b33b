"""The stage `samples`: prompts to mp4 files, rows and a contact sheet.

A prompt that cannot be made (a size that does not divide, say) is a `failed` row with the reason.
Files lie at `blobs/samples/<dit digest>/<prompt_id>.mp4`, `.png` where there is one frame, with content credentials.
"""

import dataclasses
import functools
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.execute import Context, Failure, Output, Tables
from schemas.checkpoints import AUTOENCODER_CHECKPOINT, DIT_CHECKPOINT
from schemas.errors import ModelError
from schemas.ids import canonical_json, digest
from schemas.samples import PROMPTS, SAMPLES, Sample
from schemas.store import Store
from trainer.config import SampleSettings, SamplingConfig
from trainer.credentials import Generation, secrets_of, sign
from trainer.device import present
from trainer.prompt_policy import Refused
from trainer.sample import Generator, Request
from trainer.shapes import Compression, PixelShape

SETTING = "trainer.sampling.device"
_SHEET_BYTES = 120_000


def run(context: Context) -> Output:
    """Make every prompt's video, those of one shape together."""
    settings: SampleSettings = context.settings
    present(settings.sampling.device, SETTING)
    prompts = sorted(context.read(PROMPTS).to_pylist(), key=lambda r: r["prompt_id"])
    dit = context.read(DIT_CHECKPOINT).to_pylist()[0]
    autoencoder = context.read(AUTOENCODER_CHECKPOINT).to_pylist()[0]
    groups = by_shape(prompts, settings.sampling.prompts_per_pack)
    made = context.each(
        functools.partial(_load, context.store.root, dit, autoencoder, settings.sampling, context.made_by),
        groups,
        key=lambda group: digest([dict(p, fields=None) for p in group]),
        outputs=[SAMPLES],
        on_error=functools.partial(_failed, dit, autoencoder, settings.sampling, context.made_by),
        unit="group",
        loaded=True,
    )
    rows = made[SAMPLES.name].to_pylist()
    done = [r for r in rows if r["status"] == "ok"]
    metrics = {"samples_ok": len(done), "samples_failed": len(rows) - len(done), "checkpoint": dit["digest"]}
    pictures = {"contact_sheet": contact_sheet(context.store, done)} if done else {}
    return Output(made, metrics=metrics, pictures=pictures)


def load_generator(
    store: Store, dit_row: dict[str, Any], autoencoder_row: dict[str, Any], device: str = "cpu"
) -> Generator:
    """Both models on a device, checked to belong together.

    Raises:
        ConfigError: If torch has no such device here.
        ModelError: If the transformer was trained on another autoencoder's latents.
    """
    from trainer.autoencoder import stage as autoencoder_stage
    from trainer.dit_stage import loaded
    from trainer.flow import FlowConfig

    present(device, SETTING)
    model, config = loaded(store, dit_row)
    if config["autoencoder"] != autoencoder_row["digest"]:
        raise ModelError(
            f"the dit was trained on latents of autoencoder {config['autoencoder']}, the current one is "
            f"{autoencoder_row['digest']}: run `latents` and `dit` again"
        )
    autoencoder = autoencoder_stage.loaded(store, autoencoder_row)
    sizes = Compression(**config["compression"])
    model, autoencoder = model.to(device), autoencoder.to(device)
    return Generator(model, autoencoder, FlowConfig(**config["flow"]), sizes, config["train_fps"] or 8.0)


def by_shape(prompts: Sequence[dict[str, Any]], most: int) -> list[list[dict[str, Any]]]:
    """Prompts of one shape together, at most so many."""
    found: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
    for p in prompts:
        found.setdefault((p["num_frames"], p["height"], p["width"]), []).append(p)
    return [g[i : i + most] for _, g in sorted(found.items()) for i in range(0, len(g), most)]


def _load(
    root: str, dit: dict[str, Any], autoencoder: dict[str, Any], config: SamplingConfig, made_by: str
) -> Callable[[Any], Tables]:
    """Load both models once per worker."""
    import torch

    torch.set_num_threads(config.threads)
    store = Store(root)
    generator = load_generator(store, dit, autoencoder, config.device)
    return functools.partial(_make, store, generator, dit, autoencoder, config, made_by)


def _make(
    store: Store,
    generator: Generator,
    dit: dict[str, Any],
    autoencoder: dict[str, Any],
    config: SamplingConfig,
    made_by: str,
    group: list[dict[str, Any]],
) -> Tables:
    refused, group = _refused(group, config)
    rows = [
        dataclasses.replace(sample_row(p, dit, autoencoder, config, made_by), status="failed", reason=reason)
        for p, reason in refused
    ]
    if not group:
        return {SAMPLES.name: SAMPLES.from_rows(rows)}
    first = group[0]
    shape = PixelShape(first["num_frames"], first["height"], first["width"])
    try:
        videos = generator.videos([Request(p["prompt"], p["seed"]) for p in group], shape, config)
    except ValueError as e:  # a shape that does not divide: these prompts' own trouble
        failed = _failed(dit, autoencoder, config, made_by, group, Failure("ValueError", str(e)))
        return {SAMPLES.name: pa.concat_tables([SAMPLES.from_rows(rows), failed[SAMPLES.name]])}
    fps = config.fps or generator.fps
    for p, video in zip(group, videos):
        row = dataclasses.replace(sample_row(p, dit, autoencoder, config, made_by), fps=fps)
        rows.append(dataclasses.replace(row, path=write_sample(store, video, fps, row, config)))
    return {SAMPLES.name: SAMPLES.from_rows(rows)}


def _refused(
    group: list[dict[str, Any]], config: SamplingConfig
) -> tuple[list[tuple[dict[str, Any], str]], list[dict[str, Any]]]:
    """Prompts that the policy refuses, with the reason, and the others."""
    refused, allowed = [], []
    for prompt in group:
        try:
            config.policy.check(prompt["prompt"])
        except Refused as e:
            refused.append((prompt, str(e)))
        else:
            allowed.append(prompt)
    return refused, allowed


def sample_row(
    prompt: dict[str, Any], dit: dict[str, Any], autoencoder: dict[str, Any], config: SamplingConfig, made_by: str
) -> Sample:
    """What is known of a sample before it is made."""
    return Sample(
        prompt_id=prompt["prompt_id"],
        path="",
        status="ok",
        prompt=prompt["prompt"],
        width=prompt.get("width", 0),
        height=prompt.get("height", 0),
        num_frames=prompt.get("num_frames", 0),
        fps=0.0,
        seed=prompt["seed"],
        task="text_to_video",
        checkpoint=dit["digest"],
        autoencoder=autoencoder["digest"],
        manifest=dit["trained_on"],
        sampling=canonical_json(solver(config)),
        made_by=made_by,
    )


def solver(config: SamplingConfig) -> dict[str, Any]:
    """How videos are made; device and precision where they are not the default."""
    plain = {"solver": "euler", "steps": config.steps, "guidance": config.guidance}
    usual = SamplingConfig()
    return plain | {k: v for k in ("device", "precision") if (v := getattr(config, k)) != getattr(usual, k)}


def _failed(
    dit: dict[str, Any],
    autoencoder: dict[str, Any],
    config: SamplingConfig,
    made_by: str,
    group: list[dict[str, Any]],
    failure: Failure,
) -> dict[str, pa.Table]:
    rows = [
        dataclasses.replace(sample_row(p, dit, autoencoder, config, made_by), status="failed", reason=str(failure))
        for p in group
    ]
    return {SAMPLES.name: SAMPLES.from_rows(rows)}


def write_sample(
    store: Store,
    video: np.ndarray,
    fps: float,
    row: Sample,
    config: SamplingConfig,
    *,
    prompt_used: str = "",
    given: Mapping[str, str] | None = None,
    suffix: str = "",
) -> str:
    """Encode, sign and publish one video (or picture); returns its path relative to the root.

    Args:
        given: What was given, by role: digests of files, a region, a gap.
        suffix: Of the file's name; empty takes .png for one frame and .mp4 for more.
    """
    from pipelines.video.write import write_video

    folder = Path(store.scratch())
    path = folder / f"{row.prompt_id}{suffix or ('.png' if len(video) == 1 else '.mp4')}"
    if len(video) == 1:
        Image.fromarray(video[0]).save(path)
    else:
        write_video(os.fspath(path), video, fps, crf=14)  # small pictures: keep what the model made
    if config.credentials.sign:
        made = Generation(
            checkpoint=row.checkpoint,
            autoencoder=row.autoencoder,
            manifest=row.manifest,
            prompt=row.prompt,
            prompt_used=prompt_used or row.prompt,
            seed=row.seed,
            task=row.task,
            sampling=row.sampling,
            given=dict(given or {}),
        )
        sign(path, made, config.credentials, secrets_of(store))
    relative = store.publish(path, "blobs", "samples", row.checkpoint, path.name)
    folder.rmdir()
    return relative


def strip(video: np.ndarray, most: int = 16) -> np.ndarray:
    """Frames side by side, at most so many, evenly spread, in rows of eight; one picture."""
    chosen = video[np.unique(np.linspace(0, len(video) - 1, min(most, len(video))).round().astype(int))]
    columns = min(8, len(chosen))
    rows = -(-len(chosen) // columns)
    height, width = chosen.shape[1:3]
    sheet = np.full((rows * (height + 4) - 4, columns * (width + 4) - 4, 3), 255, np.uint8)
    for i, frame in enumerate(chosen):
        y, x = i // columns * (height + 4), i % columns * (width + 4)
        sheet[y : y + height, x : x + width] = frame
    return sheet


def contact_sheet(store: Store, rows: list[dict[str, Any]], columns: int = 8, most: int = 32) -> bytes:
    """First, middle and last frame of some samples, spread over all, as a JPEG of at most 120 kB."""
    from pipelines.video.read import read_frames

    chosen = [rows[i] for i in sorted({round(k) for k in np.linspace(0, len(rows) - 1, min(most, len(rows)))})]
    tiles = []
    for row in chosen:
        frames, _ = read_frames(store.fetch(row["path"]))
        strip = np.concatenate([frames[0], frames[len(frames) // 2], frames[-1]], axis=1)
        tile = Image.fromarray(strip)
        tile.thumbnail((192, 96))
        tiles.append(tile)
    lines = -(-len(tiles) // columns) if len(tiles) > columns else 1
    sheet = Image.new("RGB", (columns * 196, lines * 100), "white")
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * 196, i // columns * 100))
    for quality in range(90, 10, -10):
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= _SHEET_BYTES:
            break
    return buffer.getvalue()
