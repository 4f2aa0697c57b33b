"""Videos of an arm for prompts that all arms share, read as soon as they are made.

Noise follows from a prompt's seed and shape alone, so arms answer the same prompts from the same noise.  What a video
shows is read off its pixels by a function of the caller's (the trainer knows no probe); kept are what it read and a
strip of the first, the middle and the last frame.  Each group of prompts is one Parquet file beside the arm's weights,
so a killed command makes again only the group it was at.

Cost: 2 x solver steps forward passes a video, one decode; about 0.3 CPU seconds for the demo's model.
"""

import dataclasses
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.execute import Progress
from schemas.ids import digest
from schemas.store import Store
from trainer.config import SamplingConfig
from trainer.determinism import deterministic
from trainer.experiments.training import Trained
from trainer.sample import Generator, Request
from trainer.sample_stage import by_shape, load_generator
from trainer.shapes import PixelShape


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A prompt."""

    prompt_id: str
    style: str
    """How it is worded: short or dense."""
    prompt: str
    width: int
    height: int
    num_frames: int
    seed: int


@dataclasses.dataclass(frozen=True, slots=True)
class Reader:
    """What reads a video, (time, height, width, 3) uint8, into what JSON can hold."""

    name: str
    """With its version: rows that another one read are not used."""
    read: Callable[[np.ndarray], Mapping[str, Any]]


def sample(
    store: Store,
    arm: Trained,
    autoencoder: dict[str, Any],
    wanted: Sequence[Wanted],
    config: SamplingConfig,
    reader: Reader,
) -> list[dict[str, Any]]:
    """One row per prompt, in the order asked: the prompt's fields, `seen`, `strip` (JPEG) and `cpu_s`.

    Raises:
        ModelError: If the arm or the autoencoder does not read.
        ValueError: If a prompt's size does not divide into cells.
    """
    groups = by_shape([dataclasses.asdict(w) for w in wanted], config.prompts_per_pack)
    how = (config.steps, config.guidance, config.fps, reader.name)
    progress = Progress("samples", len(wanted), "video")
    generator: Generator | None = None
    rows: list[dict[str, Any]] = []
    for group in groups:
        part = store.at(arm.path, "samples", f"{digest(group, how)}.parquet")
        table = store.read_part(part)
        if table is None:
            generator = generator or load_generator(store, arm.checkpoint, autoencoder)
            table = pa.Table.from_pylist(_make(generator, group, config, reader))
            store.write_part(part, table)
        rows += table.to_pylist()
        progress.advance(len(group))
    progress.close()
    order = {(w.style, w.prompt_id): i for i, w in enumerate(wanted)}
    rows.sort(key=lambda r: order[r["style"], r["prompt_id"]])
    return [{**r, "seen": json.loads(r["seen"])} for r in rows]


def _make(
    generator: Generator, group: list[dict[str, Any]], config: SamplingConfig, reader: Reader
) -> list[dict[str, Any]]:
    begun = time.process_time()
    first = group[0]
    shape = PixelShape(first["num_frames"], first["height"], first["width"])
    with deterministic(config.threads):
        videos = generator.videos([Request(p["prompt"], p["seed"]) for p in group], shape, config)
    read = [json.dumps(dict(reader.read(v)), sort_keys=True) for v in videos]
    took = (time.process_time() - begun) / len(group)
    return [{**p, "seen": s, "strip": strip(v), "cpu_s": took} for p, s, v in zip(group, read, videos)]


def strip(video: np.ndarray) -> bytes:
    """First, middle and last frame side by side, as a JPEG."""
    buffer = io.BytesIO()
    frames = [video[0], video[len(video) // 2], video[-1]] if len(video) > 1 else [video[0]]
    Image.fromarray(np.concatenate(frames, axis=1)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
