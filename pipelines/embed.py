"""Stages `embeddings` and `caption_scores`: what CLIP sees in a clip, and whether it sees what a caption says.

A clip's embedding is the mean of the unit vectors of up to eight of its proxy frames.  A caption is scored
sentence by sentence: CLIP reads 77 tokens and a dense caption is longer (Open-Sora cuts it off), and the
weakest sentence is where a caption is wrong.  One model per worker; cost: one picture pass per proxy.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from pipelines.clip_model import load_clip, sentences
from pipelines.dedup import jpegs_by_clip
from pipelines.execute import Context, Failure, Output, Stage, Tables
from pipelines.scorers.clip import CONCEPTS, SCORE_CLIP
from pipelines.verdicts import ONLY_SYNTHETIC
from pipelines.video.frames import read_jpeg
from schemas.batches import beyond
from schemas.captions import CAPTION_SCORES, CAPTIONS, CaptionScore, CaptionStatus
from schemas.checkpoints import CLIP_CHECKPOINT, Checkpoint
from schemas.clips import CLIPS, Clip
from schemas.ids import digest
from schemas.scores import EMBEDDINGS, Embedding
from schemas.table import to_rows
from schemas.videos import FRAMES

_BATCH = 32


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EmbedConfig:
    """How clips are shown to CLIP."""

    frames: int = 8
    """Proxy frames per clip, evenly over it."""
    watermark: str = "a watermark"
    """Prompt of the concept `watermark`."""
    text: str = "text and subtitles"
    """Prompt of the concept `text`."""
    slideshow: str = "a slide of a presentation"
    """Prompt of the concept `slideshow`."""
    screen_recording: str = "a recording of a computer screen"
    """Prompt of the concept `screen_recording`."""

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f"frames must be at least 1, got {self.frames}")

    @property
    def prompts(self) -> list[str]:
        return [getattr(self, name) for name in CONCEPTS]


@dataclasses.dataclass(frozen=True, slots=True)
class _Item:
    """The clips of one video and their proxies."""

    clip_ids: tuple[str, ...]
    jpegs: tuple[tuple[bytes, ...], ...]


def current_clip(context: Context) -> Checkpoint:
    """The row of the CLIP in use."""
    return to_rows(context.read(CLIP_CHECKPOINT), Checkpoint)[0]


def _load(root: str, row: Checkpoint, config: EmbedConfig, made_by: str) -> Callable[[_Item], Tables]:
    """Runs once per worker: load the model, read the prompts, return the function over items."""
    model, preprocess, tokenizer = load_clip(root, row)
    concepts = encode_texts(model, tokenizer, config.prompts)
    return partial(_embed, model, preprocess, concepts, row.digest, made_by)


def encode_texts(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    """(text, dim) unit vectors."""
    import torch

    with torch.inference_mode():
        parts = [
            model.encode_text(tokenizer(texts[i : i + _BATCH]), normalize=True).float().numpy()
            for i in range(0, len(texts), _BATCH)
        ]
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


def encode_frames(model: Any, preprocess: Any, jpegs: tuple[bytes, ...]) -> np.ndarray:
    """(frame, dim) unit vectors."""
    import torch
    from PIL import Image

    with torch.inference_mode():
        pictures = torch.stack([preprocess(Image.fromarray(read_jpeg(j))) for j in jpegs])
        parts = [
            model.encode_image(pictures[i : i + _BATCH], normalize=True).float().numpy()
            for i in range(0, len(pictures), _BATCH)
        ]
    return np.concatenate(parts)


def _embed(model: Any, preprocess: Any, concepts: np.ndarray, digest_: str, made_by: str, item: _Item) -> Tables:
    embeddings, scores = [], []
    for clip_id, jpegs in zip(item.clip_ids, item.jpegs):
        if not jpegs:
            scores.append(_no_score(clip_id, "the clip has no proxy frame", made_by))
            continue
        vectors = encode_frames(model, preprocess, jpegs)
        mean = vectors.mean(axis=0)
        mean = mean / max(float(np.linalg.norm(mean)), 1e-6)
        coherence = float(np.clip(vectors[0] @ vectors[-1], -1, 1))
        embeddings.append(
            Embedding(clip_id=clip_id, embedding=mean.tolist(), first_to_last=coherence, model=digest_, made_by=made_by)
        )
        cosines = {n: float(np.clip(c, -1, 1)) for n, c in zip(CONCEPTS, concepts @ mean)}
        scores.append({"clip_id": clip_id, **cosines, "first_to_last": coherence, "error": "", "made_by": made_by})
    return {EMBEDDINGS.name: EMBEDDINGS.from_rows(embeddings), SCORE_CLIP.name: SCORE_CLIP.from_rows(scores)}


def _no_score(clip_id: str, error: str, made_by: str) -> dict[str, Any]:
    return {"clip_id": clip_id, **dict.fromkeys((*CONCEPTS, "first_to_last")), "error": error, "made_by": made_by}


def _failed(item: _Item, failure: Failure, made_by: str) -> Tables:
    rows = [_no_score(c, f"CLIP ended with {failure}", made_by) for c in item.clip_ids]
    return {EMBEDDINGS.name: EMBEDDINGS.empty(), SCORE_CLIP.name: SCORE_CLIP.from_rows(rows)}


def _embeddings(context: Context) -> Output:
    config: EmbedConfig = context.settings
    row = current_clip(context)
    clips = sorted(to_rows(context.read(CLIPS), Clip), key=lambda c: (c.video_id, c.start_frame))
    jpegs = jpegs_by_clip(context.read(FRAMES, ["video_id", "frame_index", "jpeg"]), clips, config.frames)
    by_video: dict[str, list[Clip]] = {}
    for clip in clips:
        by_video.setdefault(clip.video_id, []).append(clip)
    items = [
        _Item(tuple(c.clip_id for c in some), tuple(tuple(jpegs[c.clip_id]) for c in some))
        for some in by_video.values()
    ]
    tables = context.each(
        partial(_load, context.store.root, row, config, context.made_by),
        items,
        key=digest,
        outputs=(EMBEDDINGS, SCORE_CLIP),
        on_error=lambda item, failure: _failed(item, failure, context.made_by),
        unit="video",
        loaded=True,
    )
    metrics: dict[str, Any] = {"embedded": tables[EMBEDDINGS.name].num_rows, "knows": row.knows}
    if beyond(row.knows, context.batch):
        metrics["note"] = ONLY_SYNTHETIC
    return Output(tables, metrics=metrics)


def score_caption(
    clip: np.ndarray, short: np.ndarray, dense: np.ndarray
) -> tuple[float | None, float | None, float | None]:
    """(short, mean of the dense sentences, weakest of them) as cosines; None where there is no text.

    Args:
        clip: (dim,) unit vector.
        short, dense: (text, dim) unit vectors.
    """
    first = [float(c) for c in short @ clip] if len(short) else []
    rest = [float(c) for c in dense @ clip] if len(dense) else []
    bounded = [np.clip(v, -1, 1) if v is not None else None for v in _three(first, rest)]
    return tuple(None if v is None else float(v) for v in bounded)  # type: ignore[return-value]


def _three(first: list[float], rest: list[float]) -> tuple[float | None, float | None, float | None]:
    return (
        sum(first) / len(first) if first else None,
        sum(rest) / len(rest) if rest else None,
        min(rest) if rest else None,
    )


def _caption_scores(context: Context) -> Output:
    row = current_clip(context)
    embeddings = context.read(EMBEDDINGS, ["clip_id", "embedding", "model"]).to_pylist()
    vectors = {e["clip_id"]: np.array(e["embedding"], np.float32) for e in embeddings if e["model"] == row.digest}
    captions = context.read(CAPTIONS, ["clip_id", "short", "dense", "status"]).to_pylist()
    spoken = [c for c in captions if c["status"] == CaptionStatus.OK and c["clip_id"] in vectors]
    unique = sorted({t for c in spoken for t in (*sentences(c["short"]), *sentences(c["dense"]))})
    encoded: dict[str, np.ndarray] = {}
    if unique:
        model, _, tokenizer = load_clip(context.store.root, row)
        encoded = dict(zip(unique, encode_texts(model, tokenizer, unique)))
    rows = []
    for caption in spoken:
        clip = vectors[caption["clip_id"]]
        short, dense = (
            np.array([encoded[t] for t in sentences(caption[k])]).reshape(-1, len(clip)) for k in ("short", "dense")
        )
        cosine, mean, weakest = score_caption(clip, short, dense)
        rows.append(
            CaptionScore(
                clip_id=caption["clip_id"],
                short_score=cosine,
                dense_mean=mean,
                dense_min=weakest,
                model=row.digest,
                made_by=context.made_by,
            )
        )
    means = [r.dense_mean for r in rows if r.dense_mean is not None]
    metrics: dict[str, Any] = {
        "captions": len(rows),
        "dense_mean": round(sum(means) / len(means), 4) if means else None,
        "knows": row.knows,
    }
    if beyond(row.knows, context.batch):
        metrics["note"] = ONLY_SYNTHETIC
    return Output({CAPTION_SCORES.name: CAPTION_SCORES.from_rows(rows)}, metrics=metrics)


EMBEDDINGS_STAGE = Stage(
    name="embeddings",
    version=1,
    reads=(CLIPS, FRAMES, CLIP_CHECKPOINT),
    writes=(EMBEDDINGS, SCORE_CLIP),
    run=_embeddings,
    settings=lambda config: config.embed,
    doc="CLIP embedding of each clip, and its likeness to a few concepts.",
)

CAPTION_SCORES_STAGE = Stage(
    name="caption_scores",
    version=1,
    reads=(CAPTIONS, EMBEDDINGS, CLIP_CHECKPOINT),
    writes=(CAPTION_SCORES,),
    run=_caption_scores,
    settings=lambda config: None,
    doc="CLIP evidence for each sentence of a caption.",
)
