"""Which clips show the same: candidates by matrix products, then a frame-by-frame comparison at every shift.

Candidates are pairs whose mean tiny pictures correlate.  Up to some size all pairs are asked, in blocks; past
it, k-means divides the clips and each is compared with those of its nearest few groups, so that the work grows
as n**1.5 instead of n**2.  A candidate is then looked at in time: two cuts of one shot seldom begin at the same
frame (a dissolve is trimmed here and not there, a longer cut holds a shorter one), so one sequence is shifted
along the other, and they show the same if at some shift all pictures agree cell by cell, after the one gain that
a brighter or darker encode needs.  Cost: 432 numbers per product; about 2 ms per candidate.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

_BLOCK = 1024
_SHIFT_STEPS_S = (0.2, 0.05)
"""First over the whole reach, then about the best, s; between two pictures is interpolated."""
_MOST_SHIFTS = 400
_SEED = 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NearConfig:
    """When two clips show the same, and how they are found among many."""

    min_correlation: float = 0.9
    """Smallest correlation of the mean tiny pictures of a candidate, [-1, 1]."""
    max_mean: float = 0.03
    """Largest mean difference of tiny pictures at the best shift, [0, 1]."""
    min_agreement: float = 0.98
    """Smallest correlation of tiny pictures at the best shift, [-1, 1]; title cards differ little and agree less."""
    max_cell: float = 0.3
    """Largest difference that one in a hundred cells may exceed, [0, 1]; what moves is seldom at quite one place."""
    min_gain: float = 0.7
    """How much darker one may be than the other; its inverse is how much brighter."""
    max_shift_s: float = 1.0
    """How far a clip may begin before, or end after, the one it is compared with, s."""
    min_overlap: float = 0.6
    """Share of the shorter clip that both must show, (0, 1]."""
    all_pairs_to: int = 20_000
    """With more clips than this, only those of the same groups are compared."""
    group_size: int = 1000
    """Clips in a group, about."""
    groups_each: int = 3
    """Groups that a clip is looked for in."""

    def __post_init__(self) -> None:
        if (
            not -1
            <= min(self.min_correlation, self.min_agreement)
            <= max(self.min_correlation, self.min_agreement)
            <= 1
        ):
            raise ValueError("min_correlation and min_agreement lie in [-1, 1]")
        if not 0 < self.max_mean <= 1 or not 0 < self.max_cell <= 1:
            raise ValueError("max_mean and max_cell lie in (0, 1]")
        if not 0 < self.min_gain <= 1 or self.max_shift_s < 0 or not 0 < self.min_overlap <= 1:
            raise ValueError("min_gain and min_overlap lie in (0, 1], max_shift_s is at least 0")
        if min(self.all_pairs_to, self.group_size, self.groups_each) < 1:
            raise ValueError("all_pairs_to, group_size and groups_each are at least 1")


@dataclasses.dataclass(frozen=True, slots=True)
class Sequence:
    """A clip's tiny pictures."""

    pictures: np.ndarray
    """(time, VALUES) float32 in [0, 1]."""
    times_s: np.ndarray


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """How well two sequences agree at their best shift."""

    difference: float
    """Mean over all cells, [0, 1]."""
    cell: float
    """What one cell in a hundred exceeds, [0, 1]."""
    agreement: float
    """Correlation over all cells, [-1, 1]."""
    shift_s: float
    """When the second begins, in the first's time."""

    def is_same(self, config: NearConfig) -> bool:
        return (
            self.difference <= config.max_mean
            and self.cell <= config.max_cell
            and self.agreement >= config.min_agreement
        )


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Each row without its mean, at length 1, float32."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6), np.float32)


def candidates(vectors: np.ndarray, config: NearConfig) -> list[tuple[int, int]]:
    """(i, j) with i < j whose unit vectors have a cosine of at least the bound, sorted."""
    found: set[tuple[int, int]] = set()
    for rows in _groups(vectors, config):
        for i, j in _close(vectors[rows], config.min_correlation):
            found.add((int(rows[i]), int(rows[j])))
    return sorted(found)


def _groups(vectors: np.ndarray, config: NearConfig) -> Iterator[np.ndarray]:
    """Row numbers, ascending, of clips to be compared with one another."""
    if len(vectors) <= config.all_pairs_to:
        yield np.arange(len(vectors))
        return
    centres = k_means(vectors, math.ceil(len(vectors) / config.group_size))
    near = nearest(vectors, centres, config.groups_each)
    for group in range(len(centres)):
        yield np.flatnonzero((near == group).any(axis=1))


def _close(vectors: np.ndarray, bound: float) -> Iterator[tuple[int, int]]:
    for start in range(0, len(vectors), _BLOCK):
        product = vectors[start : start + _BLOCK] @ vectors[start:].T
        for row, column in np.argwhere(np.triu(product >= bound, k=1)):
            yield start + int(row), start + int(column)


def k_means(vectors: np.ndarray, count: int, rounds: int = 8, sample: int = 100_000) -> np.ndarray:
    """(count, dim) unit centres; the same vectors give the same centres."""
    rng = np.random.default_rng(_SEED)
    rows = vectors if len(vectors) <= sample else vectors[np.sort(rng.choice(len(vectors), sample, replace=False))]
    centres = rows[np.sort(rng.choice(len(rows), min(count, len(rows)), replace=False))].copy()
    for _ in range(rounds):
        own = nearest(rows, centres, 1)[:, 0]
        sums = np.zeros(centres.shape, np.float64)
        np.add.at(sums, own, rows)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(norms > 1e-9, sums / np.maximum(norms, 1e-9), centres).astype(np.float32)
    return centres


def nearest(vectors: np.ndarray, centres: np.ndarray, count: int) -> np.ndarray:
    """(row, count) numbers of the centres with the largest cosine, best first."""
    count = min(count, len(centres))
    parts = [
        np.argsort(-(vectors[start : start + _BLOCK] @ centres.T), axis=1, kind="stable")[:, :count]
        for start in range(0, len(vectors), _BLOCK)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, count), np.int64)


def match(a: Sequence, b: Sequence, config: NearConfig) -> Match | None:
    """The shift at which they agree best; None if they never overlap enough."""
    longer, shorter = float(a.times_s[-1] - a.times_s[0]), float(b.times_s[-1] - b.times_s[0])
    if shorter > longer:
        turned = match(b, a, config)
        return None if turned is None else dataclasses.replace(turned, shift_s=-turned.shift_s)
    coarse, fine = _SHIFT_STEPS_S
    low, high = -config.max_shift_s, longer - shorter + config.max_shift_s
    shifts = np.linspace(low, high, min(_MOST_SHIFTS, round((high - low) / coarse) + 1))
    best = _best(a, b, shifts, config)
    if best is None:
        return None
    around = best[1] + fine * np.arange(-round(coarse / fine), round(coarse / fine) + 1)
    difference, shift = min(best, _best(a, b, around, config) or best)
    pair = _overlap(a, b, shift, config)
    if pair is None:
        return None
    first, second = pair[0], pair[1] * _gain(*pair)
    centred = [x - x.mean() for x in (first, second)]
    norms = float(np.linalg.norm(centred[0]) * np.linalg.norm(centred[1]))
    agreement = float((centred[0] * centred[1]).sum()) / norms if norms > 1e-6 else 1.0
    return Match(difference, float(np.percentile(np.abs(first - second), 99)), min(1.0, agreement), shift)


def _best(a: Sequence, b: Sequence, shifts: np.ndarray, config: NearConfig) -> tuple[float, float] | None:
    """(mean difference, shift) of the best shift."""
    found = []
    for shift in shifts:
        pair = _overlap(a, b, float(shift), config)
        if pair is not None and config.min_gain <= (gain := _gain(*pair)) <= 1 / config.min_gain:
            found.append((float(np.abs(pair[0] - gain * pair[1]).mean()), float(shift)))
    return min(found, default=None)


def _gain(a: np.ndarray, b: np.ndarray) -> float:
    """What `b` must be multiplied with to be nearest to `a`."""
    return float((a * b).sum()) / max(float((b * b).sum()), 1e-6)


def _overlap(a: Sequence, b: Sequence, shift_s: float, config: NearConfig) -> tuple[np.ndarray, np.ndarray] | None:
    """Both sequences' pictures at the second's times that both show."""
    times = b.times_s + shift_s
    inside = (times >= a.times_s[0] - 1e-6) & (times <= a.times_s[-1] + 1e-6)
    if not inside.any() or inside.mean() < config.min_overlap:
        return None
    return _at(a, times[inside]), b.pictures[inside]


def _at(a: Sequence, times_s: np.ndarray) -> np.ndarray:
    """The sequence's pictures at other times, between two of its own."""
    if len(a.times_s) == 1:
        return np.repeat(a.pictures, len(times_s), axis=0)
    right = np.clip(np.searchsorted(a.times_s, times_s), 1, len(a.times_s) - 1)
    span = np.maximum(a.times_s[right] - a.times_s[right - 1], 1e-6)
    share = np.clip((times_s - a.times_s[right - 1]) / span, 0, 1).astype(np.float32)[:, None]
    return np.asarray(a.pictures[right - 1] * (1 - share) + a.pictures[right] * share)
