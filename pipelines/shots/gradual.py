"""Dissolves and their extent: stretches in which every frame is a mixture of the frames at both ends.

Four witnesses, all on what the one pass leaves behind.  On 16 x 16 thumbnails the frames lie on the line between
both ends, at evenly growing shares; the picture changes faster than beside (a pan changes evenly, and is none);
nothing jumps; and the picture is flatter in the middle: two pictures that do not know of each other have, half and
half, half the mean of their variances, of luma and of its Laplacian, while what moves or zooms keeps both.
After Koala-36M (arXiv:2410.08260), which looks for gradual changes over 8 frames, with the extent measured
instead of a fixed trim: peers cut a fixed 0.5 s from every end, a third of a 3 s shot.

Each witness is its measure over its bound, the weakest decides, and 0.5 is exactly at the bounds; frames of the
best stretches carry that number (`signals.gradual`), so that the bound can be moved without decoding.
Cost: a few numpy passes over 384 bytes per frame.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pipelines.shots.fades import runs
from pipelines.shots.signals import SignalCurves

_HALVES = (2, 3, 4, 5, 6, 8, 10, 12, 15, 19, 24, 30)
_BLOCK = 4096
_TURN = 0.01
"""Smallest change of mean luma that counts as a turn of flickering light, [0, 1]."""
_TURNS = 6
"""Turns in a row that make a flicker."""
_FLOOR = 0.3
"""Evidence under which a stretch is not written down."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GradualConfig:
    """What a dissolve looks like."""

    max_half_s: float = 0.8
    """Longest half of a dissolve that is tried, s."""
    min_difference: float = 0.03
    """Smallest mean difference of the thumbnails at both ends, [0, 1]."""
    max_residual: float = 0.25
    """Largest distance from the line between both ends, relative to their difference."""
    max_bend: float = 0.08
    """Largest deviation of the mixture's share from growing evenly, [0, 1]."""
    max_jump: float = 2.5
    """Largest change between two frames, over the mean one."""
    min_speed_up: float = 1.0
    """How much faster the picture changes inside than on the faster side."""
    min_speed_up_one_side: float = 1.8
    """The same against the slower side."""
    min_dip: float = 0.22
    """Smallest loss of variance in the middle against the mean of both ends; 0.5 where nothing is shared.

    The mean of the losses of luma and of its Laplacian: a thing that moves may blur, but keeps its contrast.
    """

    def __post_init__(self) -> None:
        if min(self.max_half_s, self.min_difference, self.max_residual, self.max_bend, self.min_dip) <= 0:
            raise ValueError("gradual: all bounds are positive")


def dissolve_evidence(curves: SignalCurves, fps: float, config: GradualConfig) -> np.ndarray:
    """Evidence that a frame lies in a dissolve, (frame,) float32 in [0, 1]; the best stretches, without overlap."""
    flickers = flickering(curves.luma)
    thumbs = steadied(curves.thumbs, flickers)
    variances = [steadied(v, flickers) for v in (curves.sharpness, curves.contrast**2)]
    evidence = np.zeros(len(thumbs), np.float32)
    if len(thumbs) < 6:
        return evidence
    total = np.concatenate([[0.0], np.cumsum(speeds(thumbs))])
    candidates = []
    for half in _HALVES:
        if half <= max(2, config.max_half_s * fps) and 2 * half + 1 <= len(thumbs):
            candidates += _candidates(thumbs, variances, total, half, config)
    for _, strength, start, end in sorted(candidates, key=lambda c: (c[1] < 0.5, c)):
        if evidence[start : end + 1].all():  # a better one has it
            continue
        low, high = _extent(thumbs, start, end)
        if not evidence[max(0, low - 1) : high + 1].any():
            evidence[low:high] = strength
    return evidence


def flickering(luma: np.ndarray) -> np.ndarray:
    """Frames, (frame,) bool, of a stretch in which brightness goes up and down with every frame."""
    steps = np.diff(luma.astype(np.float64), prepend=luma[:1], append=luma[-1:])
    turns = (steps[1:] * steps[:-1] < 0) & (np.minimum(np.abs(steps[1:]), np.abs(steps[:-1])) > _TURN)
    found = np.zeros(len(luma), bool)
    for start, end in runs(turns):
        if end - start >= _TURNS:
            found[max(0, start - 1) : end + 1] = True
    return found


def steadied(values: np.ndarray, flickers: np.ndarray) -> np.ndarray:
    """Values per frame, of flickering frames a weighted mean with those beside; a dissolve stays what it is."""
    where = np.flatnonzero(flickers[1:-1]) + 1
    if not len(where):
        return values
    exact = values.astype(np.float32)
    out = values.copy()
    out[where] = (exact[where - 1] + 2 * exact[where] + exact[where + 1]) / 4
    return out


def speeds(thumbs: np.ndarray) -> np.ndarray:
    """Mean change of the thumbnail to the frame before, (frame,) in [0, 1]; 0 for the first."""
    out = np.zeros(len(thumbs))
    for block in range(1, len(thumbs), _BLOCK):
        span = np.arange(block, min(block + _BLOCK, len(thumbs)))
        out[span] = np.abs(thumbs[span].astype(np.int16) - thumbs[span - 1]).mean(axis=1) / 255
    return out


def _candidates(
    thumbs: np.ndarray, variances: Sequence[np.ndarray], total: np.ndarray, half: int, config: GradualConfig
) -> list[tuple[float, float, int, int]]:
    """(rank, evidence, start, end) of every window above the floor; a lower rank is better.

    In blocks, to bound the memory.
    """
    found: list[tuple[float, float, int, int]] = []
    for block in range(half, len(thumbs) - half, _BLOCK):
        centre = np.arange(block, min(block + _BLOCK, len(thumbs) - half))
        inside = _mean_speed(total, centre - half, centre + half)
        before = _mean_speed(total, centre - 2 * half, centre - half)
        after = _mean_speed(total, centre + half, centre + 2 * half)
        faster = np.minimum(
            inside / np.maximum(np.maximum(before, after), 5e-4) / config.min_speed_up,
            inside / np.maximum(np.minimum(before, after), 5e-4) / config.min_speed_up_one_side,
        )
        lost = np.mean([dips(v, centre, half) for v in variances], axis=0) / config.min_dip
        moved = 2 * half * inside / config.min_difference
        known = 0.5 * np.minimum(np.minimum(faster, lost), moved)
        asked = np.flatnonzero(known >= _FLOOR)
        for i in asked[_plausible(thumbs, total, centre[asked], half, config)].tolist():
            start, end = int(centre[i]) - half, int(centre[i]) + half
            judged = _judge(thumbs, start, end, config)
            if judged is not None and (strength := min(float(known[i]), judged[0], 1.0)) >= _FLOOR:
                found.append((judged[1], strength, start, end))
    return found


def dips(variance: np.ndarray, centre: np.ndarray, half: int) -> np.ndarray:
    """Share of the variance that the middle of each window lacks against the mean of its ends, (-inf, 1]."""
    smooth = np.convolve(np.pad(variance.astype(np.float64), 1, mode="edge"), np.full(3, 1 / 3), mode="valid")
    ends = (variance[centre - half] + variance[centre + half]) / 2
    middle = smooth[centre] if half >= 4 else variance[centre]
    return np.asarray(1 - middle / np.maximum(ends, 1e-9))


def _mean_speed(total: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Mean change per frame on the way from frame `start` to frame `end`; `total[i]` is the sum before frame i."""
    low, high = np.clip(start + 1, 0, len(total) - 1), np.clip(end + 1, 0, len(total) - 1)
    return np.asarray((total[high] - total[low]) / np.maximum(high - low, 1))


def _plausible(
    thumbs: np.ndarray, total: np.ndarray, centre: np.ndarray, half: int, config: GradualConfig
) -> np.ndarray:
    """Which windows `_judge` need look at: those that pass what it asks of their ends, their middle and their jumps.

    All at once, which is ten times cheaper; every bound is a hair wider, so that it changes no answer.
    """
    if not len(centre):
        return np.zeros(0, bool)
    steps = np.lib.stride_tricks.sliding_window_view(np.diff(total), 2 * half)[centre - half + 1]
    even = steps.max(axis=1) <= 1.001 * config.max_jump * steps.mean(axis=1)
    first, middle, last = (thumbs[centre + offset].astype(np.float32) for offset in (-half, 0, half))
    line = last - first
    share = ((middle - first) * line).sum(axis=1) / np.maximum((line * line).sum(axis=1), 1e-6)
    apart = np.abs(line).mean(axis=1) / 255 >= 1.998 * _FLOOR * config.min_difference
    return np.asarray(even & apart & (np.abs(share - 0.5) <= 0.501 * config.max_bend / _FLOOR))


def _judge(thumbs: np.ndarray, start: int, end: int, config: GradualConfig) -> tuple[float, float] | None:
    """Whether the frames between two are mixtures of them, in evenly growing shares: evidence and a rank.

    None where the evidence is below the floor.
    """
    span = thumbs[start : end + 1].astype(np.float32)
    steps = np.abs(span[1:] - span[:-1]).mean(axis=1)
    difference = float(np.abs(span[-1] - span[0]).mean()) / 255
    if difference < 2 * _FLOOR * config.min_difference or steps.max() > config.max_jump * steps.mean():
        return None  # one jump is a hard cut
    line, even = span[-1] - span[0], np.linspace(0, 1, len(span), dtype=np.float32)
    share = (span - span[0]) @ line / max(float(line @ line), 1e-6)
    bend = float(np.abs(share - even).max())
    if 0.5 * config.max_bend / max(bend, 1e-6) < _FLOOR:
        return None  # whatever the residual is, evidence stays below the floor
    inner = span[1:-1] - (span[0] + even[1:-1, None] * line)
    residual = float(np.abs(inner).mean()) / 255 / difference
    evidence = 0.5 * min(
        difference / config.min_difference,
        config.max_bend / max(bend, 1e-6),
        config.max_residual / max(residual, 1e-6),
    )
    return evidence, residual + bend - difference


def _extent(thumbs: np.ndarray, start: int, end: int) -> tuple[int, int]:
    """Walk outwards while the mixture goes on; returns the mixed frames as `[start, end)`."""
    first, last = thumbs[start].astype(np.float32), thumbs[end].astype(np.float32)
    line = last - first
    step = float(line @ line) / (end - start)

    def goes_on(frame: int) -> bool:
        change = thumbs[frame + 1].astype(np.float32) - thumbs[frame]
        return float(change @ line) > 0.4 * step

    low, high = start, end
    while low > 0 and start - low < end - start and goes_on(low - 1):
        low -= 1
    while high + 1 < len(thumbs) and high - end < end - start and goes_on(high):
        high += 1
    while low < high - 2 and not goes_on(low):
        low += 1
    while high > low + 2 and not goes_on(high - 1):
        high -= 1
    return low + 1, high
