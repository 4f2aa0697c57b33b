"""What CLIP sees: an embedding per clip, concept scores, and how well a caption's sentences are found in it.

Reads proxy frames, never the source.  A clip's embedding is the normalised mean of its frames' unit vectors.  A
caption is scored sentence by sentence, because CLIP reads 77 tokens and a dense caption is longer.

Cost: one image-tower pass per proxy that is used (8 per clip); clips go to the workers in fixed groups, so the rows do
not depend on how many workers there are.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from pipelines import clip_model
from pipelines.execute import Context, Failure, Output, Stage, Tables
from schemas import batches
from schemas.captions import CAPTION_SCORES, CAPTIONS, CaptionScore, CaptionStatus
from schemas.checkpoints import CLIP_CHECKPOINT, Checkpoint
from schemas.clips import CLIPS
from schemas.ids import digest
from schemas.scores import EMBEDDINGS, Embedding, score_table
from schemas.store import Store
from schemas.table import to_rows
from schemas.videos import FRAMES

SCORE_CLIP = score_table(
    "clip",
    {
        "watermark": ("CLIP's preference for a watermarked picture over a clean one.", "", "[0, 1]"),
        "first_to_last": ("Cosine of the first and the last frame's embedding.", "", "[-1, 1]"),
    },
)
FOREIGN = "CLIP scores come from a model that knows the synthetic world alone; the policy does not use them here"
_GROUP = 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EmbedConfig:
    """What CLIP is asked."""

    frames_per_clip: int = 8
    """Proxies that are embedded, evenly spaced, the first and the last among them."""
    watermark_prompts: tuple[str, str] = ("a picture with a watermark logo", "a clean picture")
    """The concept and its opposite; the score is the softmax of their cosines at CLIP's temperature 100."""

    def __post_init__(self) -> None:
        if self.frames_per_clip < 2:
            raise ValueError(f"frames_per_clip must be at least 2, got {self.frames_per_clip}")


def checkpoint(context: Context) -> Checkpoint:
    return to_rows(context.read(CLIP_CHECKPOINT), Checkpoint)[0]


def proxies(context: Context, count: int) -> dict[str, list[bytes]]:
    """Up to `count` evenly spaced proxies inside each clip, first and last included."""
    clips = context.read(CLIPS, ["clip_id", "video_id", "start_frame", "end_frame"]).to_pylist()
    frames = context.read(FRAMES, ["video_id", "frame_index", "jpeg"])
    by_video: dict[str, list[tuple[int, int]]] = {}
    for row, (video, index) in enumerate(zip(frames["video_id"].to_pylist(), frames["frame_index"].to_pylist())):
        by_video.setdefault(video, []).append((index, row))
    found = {}
    for clip in clips:
        inside = [
            r for i, r in sorted(by_video.get(clip["video_id"], [])) if clip["start_frame"] <= i < clip["end_frame"]
        ]
        chosen = (
            np.unique(np.linspace(0, len(inside) - 1, min(count, len(inside))).round().astype(int)) if inside else []
        )
        found[clip["clip_id"]] = [frames["jpeg"][inside[i]].as_py() for i in chosen]
    return found


def _groups(items: Sequence[Any]) -> list[list[Any]]:
    return [list(items[i : i + _GROUP]) for i in range(0, len(items), _GROUP)]


def _key(group: Sequence[Any]) -> str:
    return digest([(item[0], *item[1:]) for item in group])


# --- embeddings ------------------------------------------------------------------------------------


def _load_embedder(root: str, row: Checkpoint, config: EmbedConfig, made_by: str) -> Callable[[Any], Tables]:
    clip = clip_model.load(Store(root), row)
    concept = clip.texts(config.watermark_prompts)
    return partial(_embed, clip=clip, concept=concept, made_by=made_by)


def _embed(
    group: Sequence[tuple[str, list[bytes]]], clip: clip_model.Clip, concept: np.ndarray, made_by: str
) -> Tables:
    embedded, scored = [], []
    for clip_id, jpegs in group:
        try:
            if not jpegs:
                raise ValueError("no proxy frame inside the clip")
            vectors = clip.pictures(jpegs)
        except Exception as e:  # one unreadable proxy must not cost its neighbours
            scored.append(_no_score(clip_id, str(e), made_by))
            continue
        mean = vectors.mean(axis=0)
        unit = mean / max(float(np.linalg.norm(mean)), 1e-12)
        ends = float(vectors[0] @ vectors[-1])
        logits = 100 * concept @ unit
        watermark = float(1 / (1 + np.exp(np.clip(logits[1] - logits[0], -60, 60))))
        embedded.append(
            Embedding(clip_id=clip_id, embedding=unit.tolist(), first_to_last=ends, model=clip.digest, made_by=made_by)
        )
        scored.append(
            {"clip_id": clip_id, "watermark": watermark, "first_to_last": ends, "error": "", "made_by": made_by}
        )
    return {EMBEDDINGS.name: EMBEDDINGS.from_rows(embedded), SCORE_CLIP.name: SCORE_CLIP.from_rows(scored)}


def _no_score(clip_id: str, error: str, made_by: str) -> dict[str, Any]:
    return {
        "clip_id": clip_id,
        "watermark": None,
        "first_to_last": None,
        "error": error or "failed",
        "made_by": made_by,
    }


def _embedding_failed(group: Sequence[Any], failure: Failure, made_by: str) -> Tables:
    rows = [_no_score(clip_id, str(failure), made_by) for clip_id, _ in group]
    return {EMBEDDINGS.name: EMBEDDINGS.empty(), SCORE_CLIP.name: SCORE_CLIP.from_rows(rows)}


def _run_embeddings(context: Context) -> Output:
    config: EmbedConfig = context.settings
    row = checkpoint(context)
    items = sorted(proxies(context, config.frames_per_clip).items())
    tables = context.each(
        partial(_load_embedder, context.store.root, row, config, context.made_by),
        _groups(items),
        key=_key,
        outputs=(EMBEDDINGS, SCORE_CLIP),
        on_error=partial(_embedding_failed, made_by=context.made_by),
        unit="group",
        loaded=True,
    )
    failed = sum(1 for e in tables[SCORE_CLIP.name]["error"].to_pylist() if e)
    return Output(tables, metrics={"clips": len(items), "failed": failed, "model": row.digest, **_note(context, row)})


def _note(context: Context, row: Checkpoint) -> Mapping[str, str]:
    """Say so where a model that knows the synthetic world alone looks at something else."""
    assert context.batch is not None
    foreign = row.knows == "synthetic" and context.batch.kind != batches.SYNTHETIC
    return {"note": FOREIGN} if foreign else {}


# --- caption scores --------------------------------------------------------------------------------


def _load_scorer(root: str, row: Checkpoint, made_by: str) -> Callable[[Any], Tables]:
    return partial(_score_captions, clip=clip_model.load(Store(root), row), made_by=made_by)


def _score_captions(group: Sequence[tuple[str, list[bytes], str, str]], clip: clip_model.Clip, made_by: str) -> Tables:
    rows = []
    for clip_id, jpegs, short, dense in group:
        try:
            vectors = clip.pictures(jpegs).mean(axis=0)
            unit = vectors / max(float(np.linalg.norm(vectors)), 1e-12)
            cosines = clip.texts([short, *clip_model.sentences(dense)]) @ unit
        except Exception:  # no score is not a bad caption; the row stays, without numbers
            rows.append(_unscored(clip_id, clip.digest, made_by))
            continue
        rows.append(
            CaptionScore(
                clip_id=clip_id,
                short_score=float(cosines[0]),
                dense_mean=float(cosines[1:].mean()) if len(cosines) > 1 else None,
                dense_min=float(cosines[1:].min()) if len(cosines) > 1 else None,
                model=clip.digest,
                made_by=made_by,
            )
        )
    return {CAPTION_SCORES.name: CAPTION_SCORES.from_rows(rows)}


def _unscored(clip_id: str, model: str, made_by: str) -> CaptionScore:
    return CaptionScore(
        clip_id=clip_id, short_score=None, dense_mean=None, dense_min=None, model=model, made_by=made_by
    )


def _scoring_failed(group: Sequence[Any], failure: Failure, model: str, made_by: str) -> Tables:
    return {CAPTION_SCORES.name: CAPTION_SCORES.from_rows([_unscored(item[0], model, made_by) for item in group])}


def _run_caption_scores(context: Context) -> Output:
    config: EmbedConfig = context.settings
    row = checkpoint(context)
    seen = proxies(context, config.frames_per_clip)
    captions = context.read(CAPTIONS, ["clip_id", "short", "dense", "status"])
    ok = captions.filter(pa.compute.equal(captions["status"], CaptionStatus.OK.value)).to_pylist()
    items = sorted((c["clip_id"], seen.get(c["clip_id"], []), c["short"], c["dense"]) for c in ok)
    tables = context.each(
        partial(_load_scorer, context.store.root, row, context.made_by),
        _groups(items),
        key=_key,
        outputs=(CAPTION_SCORES,),
        on_error=partial(_scoring_failed, model=row.digest, made_by=context.made_by),
        unit="group",
        loaded=True,
    )
    means = [m for m in tables[CAPTION_SCORES.name]["dense_mean"].to_pylist() if m is not None]
    mean = round(float(np.mean(means)), 4) if means else None
    return Output(tables, metrics={"captions": len(items), "dense_mean": mean, **_note(context, row)})


EMBEDDINGS_STAGE = Stage(
    name="embeddings",
    version=1,
    reads=(CLIPS, FRAMES, CLIP_CHECKPOINT),
    writes=(EMBEDDINGS, SCORE_CLIP),
    run=_run_embeddings,
    settings=lambda config: config.embed,
    doc="CLIP embedding and concept scores of each clip.",
)
CAPTION_SCORES_STAGE = Stage(
    name="caption_scores",
    version=1,
    reads=(CAPTIONS, CLIPS, FRAMES, CLIP_CHECKPOINT),
    writes=(CAPTION_SCORES,),
    run=_run_caption_scores,
    settings=lambda config: config.embed,
    doc="CLIP evidence for each caption, sentence by sentence.",
)
