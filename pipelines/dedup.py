"""Near-duplicates: the same shot again in another cut, size or encode.

Two witnesses must agree.  CLIP embeddings say that two clips mean the same (cosine at or above a bound);
tiny colour pictures of their first, middle and last proxy say that they look the same, cell by cell, after a
gain that a brighter or darker encode needs.  The second keeps a CLIP that knows little from throwing good
clips away; where the CLIP does not know this footage at all, it decides alone.  Of a pair the larger
picture stays, then the longer clip, then the first id; the pair is written down with the reason.

Only clips of one batch are compared in this version; across batches a near-duplicate is not found.
Cost: all pairs, n**2 / 2 products of 768 numbers in blocks: 10,000 clips in some seconds.
Ref: Cosmos (arXiv:2501.03575) keeps the highest resolution; Open-Sora drops at cosine 0.98 without a witness.
"""

import dataclasses
from typing import Any

import numpy as np

from pipelines.execute import Context, Output, Stage
from pipelines.verdicts import clip_knows
from pipelines.video.frames import nearest_indices, read_jpeg
from schemas.batches import beyond
from schemas.checkpoints import CLIP_CHECKPOINT
from schemas.clips import CLIPS, Clip
from schemas.scores import DUPLICATES, EMBEDDINGS, Duplicate
from schemas.table import to_rows
from schemas.videos import FRAMES

GRID = 16
_BLOCK = 1024


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DedupConfig:
    """When two clips show the same."""

    min_cosine: float = 0.9
    """Smallest cosine of the CLIP embeddings, [-1, 1]."""
    min_correlation: float = 0.95
    """Smallest correlation of the tiny pictures, [-1, 1]."""
    max_mean: float = 0.02
    """Largest mean difference of the tiny pictures after a common gain, [0, 1]."""
    max_cell: float = 0.45
    """Largest difference in any one cell, [0, 1]; a thing that moves is not at the same place to the frame."""

    def __post_init__(self) -> None:
        if not (
            -1 <= self.min_cosine <= 1 and -1 <= self.min_correlation <= 1 and 0 < self.max_mean <= self.max_cell <= 1
        ):
            raise ValueError("max_mean and max_cell lie in (0, 1], max_mean not above max_cell")


def fingerprint(jpegs: list[bytes]) -> np.ndarray | None:
    """(3, GRID, GRID, 3) float32 in [0, 1]: first, middle and last proxy as tiny colour pictures."""
    if not jpegs:
        return None
    import cv2

    last = len(jpegs) - 1
    pictures = [read_jpeg(jpegs[i]) for i in (0, last // 2, last)]
    tiny = [cv2.resize(p, (GRID, GRID), interpolation=cv2.INTER_AREA) for p in pictures]
    return np.stack(tiny).astype(np.float32) / 255


def looks_same(a: np.ndarray, b: np.ndarray, config: DedupConfig) -> bool:
    """Cell by cell, after the gain that fits best."""
    gain = float((a * b).sum() / max(float((b * b).sum()), 1e-6))
    if not 0.7 <= gain <= 1.4:
        return False
    difference = np.abs(a - gain * b)
    return bool(difference.mean() <= config.max_mean and difference.max() <= config.max_cell)


def find_pairs(prints: np.ndarray, embeddings: np.ndarray | None, config: DedupConfig) -> list[tuple[int, int, float]]:
    """(i, j, similarity) with i < j of every pair on which the witnesses agree.

    Args:
        prints: (clip, 3, GRID, GRID, 3) fingerprints.
        embeddings: (clip, dim) unit vectors, or None where CLIP has no say; then similarity is the correlation.
    """
    num = len(prints)
    flat = prints.reshape(num, -1)
    centred = flat - flat.mean(axis=1, keepdims=True)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    pairs = []
    for start in range(0, num, _BLOCK):
        correlation = unit[start : start + _BLOCK] @ unit[start:].T
        agree = correlation >= config.min_correlation
        similarity = correlation
        if embeddings is not None:
            similarity = embeddings[start : start + _BLOCK] @ embeddings[start:].T
            agree &= similarity >= config.min_cosine
        for row, column in np.argwhere(np.triu(agree, k=1)):
            i, j = start + int(row), start + int(column)
            if looks_same(prints[i], prints[j], config):
                pairs.append((i, j, float(np.clip(similarity[row, column], -1, 1))))
    return pairs


def choose(clips: list[Clip], pairs: list[tuple[int, int, float]], made_by: str) -> list[Duplicate]:
    """Keep the best clip of each pair; a clip that was dropped takes no other with it."""
    order = sorted(range(len(clips)), key=lambda i: _rank(clips[i]))
    partners: dict[int, list[tuple[int, float]]] = {}
    for i, j, similarity in pairs:
        partners.setdefault(i, []).append((j, similarity))
        partners.setdefault(j, []).append((i, similarity))
    position = {i: p for p, i in enumerate(order)}
    dropped: dict[int, Duplicate] = {}
    for best in order:
        if best in dropped:
            continue
        for other, similarity in sorted(partners.get(best, [])):
            if other in dropped or position[other] < position[best]:
                continue
            dropped[other] = Duplicate(
                clip_id=clips[other].clip_id,
                kept_clip_id=clips[best].clip_id,
                cosine=similarity,
                why=_why(clips[best], clips[other]),
                made_by=made_by,
            )
    return list(dropped.values())


def _rank(clip: Clip) -> tuple[int, float, str]:
    return (-clip.width * clip.height, -(clip.end_s - clip.start_s), clip.clip_id)


def _why(kept: Clip, other: Clip) -> str:
    if kept.width * kept.height != other.width * other.height:
        return "resolution"
    return "size" if kept.end_s - kept.start_s != other.end_s - other.start_s else "order"


def jpegs_by_clip(frames: Any, clips: list[Clip], count: int) -> dict[str, list[bytes]]:
    """Up to `count` proxies of each clip, evenly over it, in time order."""
    rows: dict[str, list[tuple[int, int]]] = {}
    for row, (video, index) in enumerate(zip(frames["video_id"].to_pylist(), frames["frame_index"].to_pylist())):
        rows.setdefault(video, []).append((index, row))
    jpegs = frames["jpeg"].combine_chunks() if frames.num_rows else frames["jpeg"]
    chosen = {}
    for clip in clips:
        inside = sorted(r for r in rows.get(clip.video_id, []) if clip.start_frame <= r[0] < clip.end_frame)
        chosen[clip.clip_id] = [jpegs[inside[i][1]].as_py() for i in nearest_indices(len(inside), count)]
    return chosen


def _duplicates(context: Context) -> Output:
    clips = sorted(to_rows(context.read(CLIPS), Clip), key=lambda c: c.clip_id)
    frames = context.read(FRAMES, ["video_id", "frame_index", "jpeg"])
    jpegs = jpegs_by_clip(frames, clips, 3)
    prints = {c.clip_id: p for c in clips if (p := fingerprint(jpegs[c.clip_id])) is not None}
    known = [c for c in clips if c.clip_id in prints]
    embeddings = _embeddings(context, known)
    if embeddings is not None:
        known = [c for c in known if c.clip_id in embeddings]
    pairs: list[tuple[int, int, float]] = []
    if known:
        stacked = np.stack([prints[c.clip_id] for c in known])
        vectors = np.stack([embeddings[c.clip_id] for c in known]) if embeddings is not None else None
        pairs = find_pairs(stacked, vectors, context.settings)
    rows = choose(known, pairs, context.made_by)
    witness = "pixels and CLIP" if embeddings is not None else "pixels alone"
    metrics = {"compared": len(known), "pairs": len(pairs), "duplicates": len(rows), "witness": witness}
    return Output({DUPLICATES.name: DUPLICATES.from_rows(rows)}, metrics=metrics)


def _embeddings(context: Context, clips: list[Clip]) -> dict[str, np.ndarray] | None:
    """Vectors by clip; None where there are none, or where CLIP does not know such footage."""
    if beyond(clip_knows(context), context.batch):
        return None
    rows = context.read_optional(EMBEDDINGS, ["clip_id", "embedding"])
    if rows is None:
        return None
    return {r["clip_id"]: np.array(r["embedding"], np.float32) for r in rows.to_pylist() if r["embedding"]}


DUPLICATES_STAGE = Stage(
    name="duplicates",
    version=1,
    reads=(CLIPS, FRAMES),
    optional=(EMBEDDINGS, CLIP_CHECKPOINT),
    writes=(DUPLICATES,),
    run=_duplicates,
    settings=lambda config: config.duplicates,
    doc="Find clips of one batch that show the same.",
)
