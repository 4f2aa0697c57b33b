"""Near-duplicates in all batches together, and groups of like clips to sample evenly by.

Two witnesses must agree that two clips show the same: their tiny pictures, frame by frame (`near_pairs`), and
CLIP, which may veto what means something else.  Where CLIP does not know the footage, pixels decide alone.  Of
a pair the larger picture is better, then the longer clip, then the first id; every pair is written down with batch,
shift and reason, and the policy keeps the best one that its other rules keep (`pipelines.policy.twins`).  A clip
that comes twice under one id (one file in two batches) is one clip here.

What is left is divided into groups by k-means (over CLIP embeddings where all clips have one that means something,
over mean tiny pictures otherwise); a clip of a group of n has a weight by 1 / sqrt(n), so that a thousand like
clips count as thirty.  The manifest takes the weights over.
Cost: 10,000 clips in about 5 s, 0.2 GB per 100,000; see `near_pairs`.
Ref: Cosmos (arXiv:2501.03575) keeps the highest resolution; Movie Gen (arXiv:2410.13720) samples by 1 / sqrt(size).
"""

import dataclasses
import math
from typing import Any

import numpy as np

from pipelines.dedup.fingerprints import pictures_of
from pipelines.dedup.near_pairs import Match, NearConfig, Sequence, candidates, k_means, match, nearest, unit_rows
from pipelines.execute import Context, Output, Stage
from pipelines.policy.verdicts import clip_knows
from pipelines.video.frames import nearest_indices
from schemas import batches
from schemas.batches import beyond
from schemas.checkpoints import CLIP_CHECKPOINT
from schemas.clips import CLIPS, Clip
from schemas.scores import CLUSTERS, DUPLICATES, EMBEDDINGS, FINGERPRINTS, Cluster, Duplicate, Fingerprint
from schemas.table import to_rows


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DedupConfig:
    """When two clips show the same, and how like ones are grouped."""

    near: NearConfig = dataclasses.field(default_factory=NearConfig)
    """Tiny pictures."""
    min_cosine: float = 0.8
    """Smallest cosine of the CLIP embeddings; below it CLIP vetoes the pair, [-1, 1]."""
    groups: int = 0
    """Groups for sampling; 0 for the square root of half the clips."""

    def __post_init__(self) -> None:
        if not -1 <= self.min_cosine <= 1 or self.groups < 0:
            raise ValueError("min_cosine lies in [-1, 1], groups is at least 0")


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """A clip with all that is known of its looks."""

    clip: Clip
    batch: str
    sequence: Sequence
    embedding: np.ndarray | None
    """Unit vector; None where there is none, or where CLIP does not know such footage."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """Two clips that show the same."""

    first: int
    second: int
    found: Match
    """The second's beginning in the first's time."""
    similarity: float
    witness: str


def find_pairs(known: list[Known], config: DedupConfig) -> list[Pair]:
    """Every pair on which the witnesses agree, in order."""
    if len(known) < 2:
        return []
    vectors = mean_pictures(known)
    pairs = []
    for i, j in candidates(vectors, config.near):
        a, b = known[i], known[j]
        cosine = None
        if a.embedding is not None and b.embedding is not None:
            cosine = float(np.clip(a.embedding @ b.embedding, -1, 1))
            if cosine < config.min_cosine:
                continue
        found = match(a.sequence, b.sequence, config.near)
        if found is not None and found.is_same(config.near):
            witness = "pixels" if cosine is None else "pixels and CLIP"
            pairs.append(Pair(i, j, found, found.agreement if cosine is None else cosine, witness))
    return pairs


def mean_pictures(known: list[Known]) -> np.ndarray:
    """(clip, VALUES) unit vectors."""
    return unit_rows(np.stack([k.sequence.pictures.mean(axis=0) for k in known]))


def as_rows(known: list[Known], pairs: list[Pair], made_by: str) -> list[Duplicate]:
    """Each pair with its better clip named; who stays is the policy's business (`pipelines.policy.twins`)."""
    rows = []
    for pair in pairs:
        best, other = sorted((pair.first, pair.second), key=lambda i: _rank(known[i].clip))
        rows.append(
            Duplicate(
                clip_id=known[other].clip.clip_id,
                kept_clip_id=known[best].clip.clip_id,
                cosine=pair.similarity,
                why=_why(known[best].clip, known[other].clip),
                witness=pair.witness,
                difference=pair.found.difference,
                shift_s=round(pair.found.shift_s if pair.first == best else -pair.found.shift_s, 6) + 0.0,
                batch=known[other].batch,
                kept_batch=known[best].batch,
                made_by=made_by,
            )
        )
    return rows


def stand_ins(known: list[Known], rows: list[Duplicate]) -> dict[str, str]:
    """Clip to the better twin that stands for it where no rule but likeness decides; best clips first."""
    better: dict[str, list[str]] = {}
    for row in rows:
        better.setdefault(row.clip_id, []).append(row.kept_clip_id)
    found: dict[str, str] = {}
    for clip in sorted((k.clip for k in known), key=_rank):
        staying = [b for b in sorted(better.get(clip.clip_id, [])) if b not in found]
        if staying:
            found[clip.clip_id] = staying[0]
    return found


def _rank(clip: Clip) -> tuple[int, float, str]:
    return (-clip.width * clip.height, -(clip.end_s - clip.start_s), clip.clip_id)


def _why(kept: Clip, other: Clip) -> str:
    if kept.width * kept.height != other.width * other.height:
        return "resolution"
    return "size" if kept.end_s - kept.start_s != other.end_s - other.start_s else "order"


def group(known: list[Known], config: DedupConfig, made_by: str) -> list[Cluster]:
    """The group of every clip, and its weight."""
    if not known:
        return []
    embeddings = [k.embedding for k in known if k.embedding is not None]
    means_something = len(embeddings) == len(known)
    vectors = np.stack(embeddings).astype(np.float32) if means_something else mean_pictures(known)
    count = min(len(known), config.groups or max(1, round(math.sqrt(len(known) / 2))))
    own = nearest(vectors, k_means(vectors, count), 1)[:, 0]
    sizes = np.bincount(own, minlength=count)
    weights = 1 / np.sqrt(sizes[own])
    weights /= weights.mean()
    return [
        Cluster(
            clip_id=k.clip.clip_id,
            cluster=int(number),
            size=int(sizes[number]),
            weight=round(float(weight), 6),
            space="CLIP" if means_something else "pixels",
            made_by=made_by,
        )
        for k, number, weight in zip(known, own, weights)
    ]


def jpegs_by_clip(frames: Any, clips: list[Clip], count: int) -> dict[str, list[bytes]]:
    """Up to `count` proxies of each clip, evenly over it, in time order."""
    rows: dict[str, list[tuple[int, int]]] = {}
    for row, (video, index) in enumerate(zip(frames["video_id"].to_pylist(), frames["frame_index"].to_pylist())):
        rows.setdefault(video, []).append((index, row))
    jpegs = frames["jpeg"]  # in the pieces that were read: one piece of all pictures is a copy, and holds 2 GB at most
    chosen = {}
    for clip in clips:
        inside = sorted(r for r in rows.get(clip.video_id, []) if clip.start_frame <= r[0] < clip.end_frame)
        chosen[clip.clip_id] = [jpegs[inside[i][1]].as_py() for i in nearest_indices(len(inside), count)]
    return chosen


def load_known(context: Context) -> list[Known]:
    """Every clip of every batch that has a fingerprint, by id; of equal ids the first batch's."""
    store, knows = context.store, clip_knows(context)
    found: dict[str, Known] = {}
    for name in store.batches(FINGERPRINTS):
        means_something = not beyond(knows, batches.get(store, name)) and name in store.batches(EMBEDDINGS)
        vectors: dict[str, np.ndarray] = {}
        if means_something:
            rows = store.read(EMBEDDINGS, batch=name, columns=["clip_id", "embedding"]).to_pylist()
            vectors = {r["clip_id"]: np.array(r["embedding"], np.float32) for r in rows}
        prints = {p.clip_id: p for p in to_rows(store.read(FINGERPRINTS, batch=name), Fingerprint)}
        for clip in to_rows(store.read(CLIPS, batch=name), Clip):
            if clip.clip_id in found or clip.clip_id not in prints:
                continue
            row = prints[clip.clip_id]
            sequence = Sequence(pictures_of(row), np.array(row.times_s))
            found[clip.clip_id] = Known(clip, name, sequence, vectors.get(clip.clip_id))
    return [found[i] for i in sorted(found)]


def _duplicates(context: Context) -> Output:
    known = load_known(context)
    pairs = find_pairs(known, context.settings)
    rows = as_rows(known, pairs, context.made_by)
    stands_for = stand_ins(known, rows)
    groups = group([k for k in known if k.clip.clip_id not in stands_for], context.settings, context.made_by)
    of = {g.clip_id: g for g in groups}
    groups += [dataclasses.replace(of[best], clip_id=clip) for clip, best in stands_for.items()]
    with_clip = sum(k.embedding is not None for k in known)
    metrics = {
        "compared": len(known),
        "pairs": len(pairs),
        "duplicates": len(stands_for),
        "across_batches": sum(r.batch != r.kept_batch for r in rows),
        "witness": "pixels and CLIP" if with_clip == len(known) else "pixels" if not with_clip else "mixed",
        "groups": len({g.cluster for g in groups}),
    }
    tables = {DUPLICATES.name: DUPLICATES.from_rows(rows), CLUSTERS.name: CLUSTERS.from_rows(groups)}
    return Output(tables, metrics=metrics)


DUPLICATES_STAGE = Stage(
    name="duplicates",
    version=3,  # every pair is a fact, and the policy chooses
    reads=(CLIPS, FINGERPRINTS),
    optional=(EMBEDDINGS, CLIP_CHECKPOINT),
    writes=(DUPLICATES, CLUSTERS),
    run=_duplicates,
    settings=lambda config: config.duplicates,
    doc="Find clips that show the same, in all batches, and group like ones.",
)
