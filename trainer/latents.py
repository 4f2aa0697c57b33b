"""The stage `latents`: manifest rows to latents.

One row per manifest row: a clip that is missing, unreadable or over the budget is a `skipped` or `failed` row
with the reason.  Latents lie in safetensors shards named by content, `blobs/latents/<digest>/<shard>.safetensors`,
one per chunk of rows; each clip is encoded on its own, so chunks and workers change no number.

Cost: one decode and one encoder pass per clip, once per autoencoder; training never touches pixels.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.execute import Context, Failure, Output, Tables
from schemas.checkpoints import AUTOENCODER_CHECKPOINT
from schemas.ids import digest
from schemas.latents import LATENTS, Latent
from schemas.manifest import MANIFEST
from schemas.store import Store
from trainer.config import LatentSettings
from trainer.shapes import Compression, PixelShape, latent_shape, token_grid
from trainer.tasks.base import draw_views
from trainer.views import as_given

_COLUMNS = ["clip_id", "path", "width", "height", "fps", "num_frames"]


def run(context: Context) -> Output:
    """Encode every manifest row."""
    settings: LatentSettings = context.settings
    rows = sorted(context.read(MANIFEST, _COLUMNS).to_pylist(), key=lambda r: r["clip_id"])
    checkpoint = context.read(AUTOENCODER_CHECKPOINT).to_pylist()[0]
    size = settings.latents.rows_per_shard
    chunks = [rows[i : i + size] for i in range(0, len(rows), size)]
    made = context.each(
        functools.partial(_load, context.store.root, checkpoint, settings, context.made_by),
        chunks,
        key=lambda chunk: digest(chunk),
        outputs=[LATENTS],
        on_error=functools.partial(_failed_chunk, checkpoint["digest"], context.made_by),
        unit="shard",
        loaded=True,
    )
    table = made[LATENTS.name]
    counts = {f"rows_{s}": table["status"].to_pylist().count(s) for s in ("ok", "skipped", "failed")}
    kept = [r for r in table.to_pylist() if r["status"] == "ok"]
    metrics = {
        **counts,
        "tokens": sum(r["tokens"] for r in kept),
        "longest_tokens": max((r["tokens"] for r in kept), default=0),
        "trimmed_share": _trimmed_share(kept),
    }
    return Output(made, metrics=metrics)


def _trimmed_share(rows: Sequence[dict[str, Any]]) -> float:
    """Share of the scaled pictures' area that the snap cut off."""
    kept = sum(r["pixel_height"] * r["pixel_width"] for r in rows)
    whole = sum((r["pixel_height"] + r["trimmed_height"]) * (r["pixel_width"] + r["trimmed_width"]) for r in rows)
    return round(1 - kept / whole, 4) if whole else 0.0


def _load(root: str, checkpoint: dict[str, Any], settings: LatentSettings, made_by: str) -> Callable[[Any], Tables]:
    """Load the autoencoder once per worker."""
    import torch

    from trainer.autoencoder.stage import loaded

    torch.set_num_threads(1)
    store = Store(root)
    return functools.partial(_encode_chunk, store, loaded(store, checkpoint), checkpoint["digest"], settings, made_by)


def _encode_chunk(
    store: Store, autoencoder: Any, name: str, settings: LatentSettings, made_by: str, chunk: list[dict[str, Any]]
) -> Tables:
    from safetensors.torch import save_file

    from trainer.autoencoder.model import compression

    sizes = compression(autoencoder, settings.shape.patch)
    shard = ("blobs", "latents", made_by, f"{digest([r['clip_id'] for r in chunk], name)}.safetensors")
    rows: list[Latent] = []
    tensors: dict[str, Any] = {}
    for row in chunk:
        latent, made = encode_row(store, autoencoder, row, settings, sizes)
        tensors |= made
        rows.append(
            dataclasses.replace(latent, shard="/".join(shard) if made else "", autoencoder=name, made_by=made_by)
        )
    if tensors:
        folder = Path(store.scratch())
        save_file(tensors, folder / "shard.safetensors")
        store.publish(folder / "shard.safetensors", *shard)
        folder.rmdir()
    return {LATENTS.name: LATENTS.from_rows(rows)}


def encode_row(
    store: Store,
    autoencoder: Any,
    row: dict[str, Any],
    settings: LatentSettings,
    sizes: Compression,
    *,
    square: bool = False,
) -> tuple[Latent, dict[str, Any]]:
    """One clip's row, and its latent and views by name; a clip that gives none gives the reason.

    Args:
        square: Of the square in the clip's middle alone (`experiment framing`).
    """
    from trainer.autoencoder.model import encode
    from trainer.autoencoder.pictures import Unfit, prepare, read

    try:
        width, height = (min(row["width"], row["height"]),) * 2 if square else (row["width"], row["height"])
        plan = prepare(row["num_frames"], row["fps"], width, height, settings.shape, sizes)
    except Unfit as e:
        return _none(row["clip_id"], "skipped", str(e)), {}
    if not row["path"] or not store.exists(row["path"]):
        return _none(row["clip_id"], "skipped", f"clip file {row['path'] or '(none)'} is missing"), {}
    pixels = PixelShape(len(plan.frames.indices), plan.fit.height, plan.fit.width)
    cells = latent_shape(pixels, sizes)
    grid = token_grid(cells, sizes)
    views = draw_views(row["clip_id"], grid, settings.latents.tails, settings.latents.regions)
    try:
        pictures = read(store.fetch(row["path"]), plan, square=square)
        tensor = encode(autoencoder, pictures)
        seen = {f"{row['clip_id']} {n}": encode(autoencoder, p) for n, p in as_given(pictures, views, sizes).items()}
    except Exception as e:  # whatever a file does, it is a row
        return _none(row["clip_id"], "failed", f"{type(e).__name__}: {e}"[:500]), {}
    return Latent(
        clip_id=row["clip_id"],
        status="ok",
        shard="",
        views=views.names(),
        channels=int(tensor.shape[0]),
        latent_frames=cells.frames,
        latent_height=cells.height,
        latent_width=cells.width,
        pixel_frames=pixels.frames,
        pixel_height=pixels.height,
        pixel_width=pixels.width,
        frame_step=plan.frames.step,
        scale=plan.fit.scale,
        trimmed_height=plan.fit.trimmed_height,
        trimmed_width=plan.fit.trimmed_width,
        seconds_per_frame=plan.frames.seconds_per_frame,
        tokens=grid.num_tokens,
        autoencoder="",
    ), {name: t.contiguous() for name, t in {row["clip_id"]: tensor, **seen}.items()}


def _none(clip_id: str, status: str, reason: str) -> Latent:
    return Latent(
        clip_id=clip_id,
        status=status,
        reason=reason,
        shard="",
        channels=0,
        latent_frames=0,
        latent_height=0,
        latent_width=0,
        pixel_frames=0,
        pixel_height=0,
        pixel_width=0,
        scale=1.0,
        trimmed_height=0,
        trimmed_width=0,
        seconds_per_frame=0.0,
        tokens=0,
        autoencoder="",
    )


def _failed_chunk(name: str, made_by: str, chunk: list[dict[str, Any]], failure: Failure) -> dict[str, pa.Table]:
    rows = [
        dataclasses.replace(_none(r["clip_id"], "failed", str(failure)), autoencoder=name, made_by=made_by)
        for r in chunk
    ]
    return {LATENTS.name: LATENTS.from_rows(rows)}
