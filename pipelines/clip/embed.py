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

from pipelines.clip.model import load_clip, sentences
from pipelines.clip.scores import (
    Asker,
    EmbedConfig,
    encode_texts,
    heads_of,
    judges_safety,
    make_asker,
    no_scores,
    unit_mean,
)  # fmt: skip
from pipelines.dedup.stage import jpegs_by_clip
from pipelines.execute import Context, Failure, Output, Stage, Tables
from pipelines.policy.verdicts import ONLY_SYNTHETIC
from pipelines.scorers.clip import CLIP_OUTPUTS, SCORE_CLIP
from schemas.batches import beyond
from schemas.captions import CAPTION_SCORES, CAPTIONS, CaptionScore, CaptionStatus, SentenceScore
from schemas.checkpoints import CLIP_CHECKPOINT, Checkpoint
from schemas.clips import CLIPS, Clip
from schemas.ids import digest
from schemas.scores import EMBEDDINGS, Embedding
from schemas.store import Store
from schemas.table import to_rows
from schemas.videos import FRAMES, VIDEOS


@dataclasses.dataclass(frozen=True, slots=True)
class _Item:
    """The clips of one video and their proxies."""

    clip_ids: tuple[str, ...]
    jpegs: tuple[tuple[bytes, ...], ...]
    text: str
    """What came with the source."""


def current_clip(context: Context) -> Checkpoint:
    """The row of the CLIP in use."""
    return to_rows(context.read(CLIP_CHECKPOINT), Checkpoint)[0]


def _load(root: str, row: Checkpoint, config: EmbedConfig, knows: bool, made_by: str) -> Callable[[_Item], Tables]:
    """Runs once per worker: load the model, read prompts and heads, return the function over items."""
    loaded = load_clip(root, row)
    folder = "" if row.path.startswith("{") else Store(root).fetch(row.path)
    asker = make_asker(loaded, folder, config, knows, made_by)
    return partial(_embed, asker, row.digest)


def _embed(asker: Asker, digest_: str, item: _Item) -> Tables:
    embeddings: list[Embedding] = []
    rows: dict[str, list[dict[str, Any]]] = {t.name: [] for t in CLIP_OUTPUTS}
    text = asker.text_vectors(item.text)
    for clip_id, jpegs in zip(item.clip_ids, item.jpegs):
        if jpegs:
            frames, vectors = asker.vectors(jpegs)
            more = asker.scores(clip_id, frames, vectors, text)
            embeddings.append(
                Embedding(
                    clip_id=clip_id,
                    embedding=unit_mean(vectors).tolist(),
                    first_to_last=more[SCORE_CLIP.name][0]["first_to_last"],
                    model=digest_,
                    made_by=asker.made_by,
                )
            )
        else:
            more = asker.no_scores(clip_id, "the clip has no proxy frame")
        for name, some in more.items():
            rows[name] += some
    return {
        EMBEDDINGS.name: EMBEDDINGS.from_rows(embeddings),
        **{t.name: t.from_rows(rows[t.name]) for t in CLIP_OUTPUTS},
    }


def _failed(item: _Item, failure: Failure, unsafe: bool, made_by: str) -> Tables:
    rows: dict[str, list[dict[str, Any]]] = {t.name: [] for t in CLIP_OUTPUTS}
    for clip_id in item.clip_ids:
        for name, some in no_scores(clip_id, f"CLIP ended with {failure}", made_by, False, unsafe).items():
            rows[name] += some
    return {EMBEDDINGS.name: EMBEDDINGS.empty(), **{t.name: t.from_rows(rows[t.name]) for t in CLIP_OUTPUTS}}


def _embeddings(context: Context) -> Output:
    config: EmbedConfig = context.settings[0]
    row = current_clip(context)
    clips = sorted(to_rows(context.read(CLIPS), Clip), key=lambda c: (c.video_id, c.start_frame))
    jpegs = jpegs_by_clip(context.read(FRAMES, ["video_id", "frame_index", "jpeg"]), clips, config.frames)
    by_video: dict[str, list[Clip]] = {}
    for clip in clips:
        by_video.setdefault(clip.video_id, []).append(clip)
    said = context.read(VIDEOS, ["video_id", "text", "duplicate_of"]).to_pylist()
    texts = {v["video_id"]: v["text"] for v in said if v["duplicate_of"] is None}
    items = [
        _Item(tuple(c.clip_id for c in some), tuple(tuple(jpegs[c.clip_id]) for c in some), texts.get(video, ""))
        for video, some in by_video.items()
    ]
    knows = not beyond(row.knows, context.batch)
    unsafe = judges_safety(config, knows)
    tables = context.each(
        partial(_load, context.store.root, row, config, knows, context.made_by),
        items,
        key=digest,
        outputs=(EMBEDDINGS, *CLIP_OUTPUTS),
        on_error=lambda item, failure: _failed(item, failure, unsafe, context.made_by),
        unit="video",
        loaded=True,
    )
    metrics: dict[str, Any] = {"embedded": tables[EMBEDDINGS.name].num_rows, "knows": row.knows}
    metrics["scored"] = ", ".join(t.name for t in CLIP_OUTPUTS if tables[t.name].num_rows)
    if not knows:
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
                sentences=[
                    SentenceScore(sentence=t, score=float(np.clip(v @ clip, -1, 1)))
                    for t, v in zip(sentences(caption["dense"]), dense)
                ],
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
    version=2,  # with beauty, safety and the source's own text
    reads=(CLIPS, FRAMES, VIDEOS, CLIP_CHECKPOINT),
    writes=(EMBEDDINGS, *CLIP_OUTPUTS),
    run=_embeddings,
    settings=lambda config: (config.embed, heads_of(config.embed)),
    doc="CLIP embedding of each clip, and its likeness to a few concepts.",
)

CAPTION_SCORES_STAGE = Stage(
    name="caption_scores",
    version=2,  # sentence by sentence
    reads=(CAPTIONS, EMBEDDINGS, CLIP_CHECKPOINT),
    writes=(CAPTION_SCORES,),
    run=_caption_scores,
    settings=lambda config: None,
    doc="CLIP evidence for each sentence of a caption.",
)
