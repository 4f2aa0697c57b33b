"""Latents of the square in each clip's middle: what a trainer of one shape would train on.

The same autoencoder, frames and token budget as the root's own latents; only the picture is cut first.  They lie in
`<root>/experiments/latents/<key>/`, 32 clips a shard, and each shard's rows appear after it, so that a killed command
makes again only the shard it was at.  Cost: one decode and one encoder pass per clip.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from pipelines.execute import Progress
from schemas.ids import digest
from schemas.latents import LATENTS
from schemas.store import Store
from trainer.autoencoder.model import compression
from trainer.autoencoder.stage import loaded
from trainer.config import LatentConfig, LatentSettings
from trainer.determinism import deterministic
from trainer.latents import encode_row
from trainer.shapes import ShapeConfig

_VERSION = 1


def square_latents(
    store: Store, rows: Sequence[dict[str, Any]], checkpoint: dict[str, Any], shape: ShapeConfig, threads: int
) -> list[dict[str, Any]]:
    """Rows like those of table `latents`, one per manifest row.

    Args:
        rows: Of the manifest.
        checkpoint: The autoencoder's row.

    Raises:
        ModelError: If the autoencoder does not read.
    """
    settings = LatentSettings(latents=LatentConfig(), shape=shape)
    key = digest("square latents", _VERSION, checkpoint["digest"], shape)
    ordered = sorted(rows, key=lambda r: r["clip_id"])
    size = settings.latents.rows_per_shard
    progress = Progress("square latents", len(ordered), "clip")
    model: Any = None
    found: list[dict[str, Any]] = []
    for start in range(0, len(ordered), size):
        chunk = ordered[start : start + size]
        place = ("experiments", "latents", key)
        name = digest([[r["clip_id"], r["path"]] for r in chunk])
        part = store.at(*place, f"{name}.parquet")
        table = store.read_part(part)
        if table is None:
            model = loaded(store, checkpoint) if model is None else model
            sizes = compression(model, shape.patch)
            shard = (*place, f"{name}.safetensors")
            with deterministic(threads):
                made = [encode_row(store, model, r, settings, sizes, square=True) for r in chunk]
            tensors = {k: v for _, some in made for k, v in some.items()}
            if tensors:
                folder = Path(store.scratch())
                save_file(tensors, folder / "shard.safetensors")
                store.publish(folder / "shard.safetensors", *shard)
                folder.rmdir()
            named = [
                dataclasses.replace(
                    latent, shard="/".join(shard) if some else "", autoencoder=checkpoint["digest"], made_by=key
                )
                for latent, some in made
            ]
            table = LATENTS.from_rows(named)
            store.write_part(part, table)
        found += table.to_pylist()
        progress.advance(len(chunk))
    progress.close()
    return found
