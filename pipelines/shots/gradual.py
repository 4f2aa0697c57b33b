"""Gradual transitions and their extent: fades through black or white, and dissolves.

A fade is a run of (nearly) uniform black or white frames with a ramp of contrast on at least one side;
PySceneDetect's `ThresholdDetector` names further candidates.  A dissolve is a stretch where every frame
is a mixture of the frame before and the frame after it: on 16 x 16 thumbnails the frames lie on the line
between both ends, at evenly growing shares, and the picture changes faster than beside (a pan changes
evenly, and is none).  After Koala-36M (arXiv:2410.08260), which looks for gradual
changes over 8 frames, with the extent measured instead of a fixed trim.

Extents are trimmed from the shots: peers cut a fixed 0.5 s from every end, a third of a 3 s shot.
Cost: a few numpy passes over 384 bytes per frame.
"""

import dataclasses

import numpy as np

from schemas.shots import Boundary

_DARK, _BRIGHT = 0.12, 0.88
_HALVES = (2, 3, 4, 5, 6, 8, 10, 12, 15, 19, 24, 30)
_BLOCK = 4096


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GradualConfig:
    """How gradual transitions are found."""

    blank_contrast: float = 0.03
    """Contrast under which a dark or bright frame counts as blank, [0, 1]."""
    max_gap_s: float = 1.0
    """A blank run up to this length belongs to its fade; a longer one is a shot of its own, s."""
    max_ramp_s: float = 2.0
    """Longest ramp on one side, s."""
    max_half_s: float = 0.8
    """Longest half of a dissolve that is tried, s."""
    min_difference: float = 0.05
    """Smallest mean difference of the thumbnails at both ends, [0, 1]."""
    max_residual: float = 0.25
    """Largest distance from the line between both ends, relative to their difference."""
    max_bend: float = 0.08
    """Largest deviation of the mixture's share from growing evenly, [0, 1]."""
    min_speed_up: float = 1.15
    """How much faster the picture changes inside than on the faster side."""
    min_speed_up_one_side: float = 1.8
    """The same against the slower side."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Transition:
    """Frames `[start, end)` that show two shots, or none."""

    start: int
    end: int
    kind: str


def find_fades(
    luma: np.ndarray, contrast: np.ndarray, fps: float, seeds: list[int], config: GradualConfig
) -> list[Transition]:
    """Fades through black or white, each with its ramps; a blank stretch that is long stays a shot."""
    blank = (contrast < config.blank_contrast) & ((luma < _DARK) | (luma > _BRIGHT))
    if not len(blank) or blank.all():
        return []
    for seed in seeds:
        if 0 <= seed < len(blank) and luma[seed] < _DARK:
            blank[seed] = True
    reach, gap = max(1, round(config.max_ramp_s * fps)), config.max_gap_s * fps
    found = []
    for start, end in _runs(blank):
        low, high = _ramp(contrast, start, -1, reach), _ramp(contrast, end - 1, 1, reach)
        out_frames, in_frames = start - low, high - (end - 1)
        if end - start <= gap:
            if out_frames >= 2 or in_frames >= 2:
                found.append(Transition(low if out_frames >= 2 else start, high if in_frames >= 2 else end, "fade"))
            continue
        if out_frames >= 2:
            found.append(Transition(low, start, "fade"))
        if in_frames >= 2:
            found.append(Transition(end, high, "fade"))
    return [dataclasses.replace(f, kind=Boundary.FADE.value) for f in _merge(found)]


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def _ramp(contrast: np.ndarray, origin: int, step: int, reach: int) -> int:
    """Walk from a blank frame while contrast climbs; returns the last frame of the climb, exclusive upwards.

    The climb ends where a step is under a quarter of the mean step so far.
    """
    position, climbed = origin, 0.0
    while 0 <= position + step < len(contrast) and abs(position - origin) < reach:
        gain = float(contrast[position + step] - contrast[position])
        taken = abs(position - origin)
        usual = climbed / taken if taken else 0.0
        if gain <= 1e-4 or (taken >= 2 and gain < 0.25 * usual) or (taken >= 1 and gain > 6 * max(usual, 0.01)):
            break
        climbed += gain
        position += step
    return position


def find_dissolves(thumbs: np.ndarray, fps: float, config: GradualConfig) -> list[Transition]:
    """Dissolves, best evidence first, without overlap."""
    if len(thumbs) < 6:
        return []
    total = np.concatenate([[0.0], np.cumsum(speeds(thumbs))])
    candidates = []
    for half in _HALVES:
        if half <= max(2, config.max_half_s * fps) and 2 * half + 1 <= len(thumbs):
            candidates += _candidates(thumbs, total, half, config)
    chosen: list[Transition] = []
    for _, start, end in sorted(candidates):
        low, high = _extent(thumbs, start, end)
        if all(high <= t.start or low >= t.end for t in chosen):
            chosen.append(Transition(low, high, Boundary.DISSOLVE.value))
    return sorted(chosen)


def speeds(thumbs: np.ndarray) -> np.ndarray:
    """Mean change of the thumbnail to the frame before, (frame,) in [0, 1]; 0 for the first."""
    out = np.zeros(len(thumbs))
    for block in range(1, len(thumbs), _BLOCK):
        span = np.arange(block, min(block + _BLOCK, len(thumbs)))
        out[span] = np.abs(thumbs[span].astype(np.int16) - thumbs[span - 1]).mean(axis=1) / 255
    return out


def _candidates(
    thumbs: np.ndarray, total: np.ndarray, half: int, config: GradualConfig
) -> list[tuple[float, int, int]]:
    """(score, start, end) of every window that passes; lower is better.  In blocks, to bound the memory."""
    found: list[tuple[float, int, int]] = []
    for block in range(half, len(thumbs) - half, _BLOCK):
        centre = np.arange(block, min(block + _BLOCK, len(thumbs) - half))
        inside = _mean_speed(total, centre - half, centre + half)
        before = _mean_speed(total, centre - 2 * half, centre - half)
        after = _mean_speed(total, centre + half, centre + 2 * half)
        centre = centre[
            (2 * half * inside > config.min_difference)
            & (inside > config.min_speed_up * np.maximum(np.maximum(before, after), 5e-4))
            & (inside > config.min_speed_up_one_side * np.maximum(np.minimum(before, after), 5e-4))
        ]
        found += [c for i in centre.tolist() if (c := _judge(thumbs, i - half, i + half, config)) is not None]
    return found


def _mean_speed(total: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Mean change per frame on the way from frame `start` to frame `end`; `total[i]` is the sum before frame i."""
    low, high = np.clip(start + 1, 0, len(total) - 1), np.clip(end + 1, 0, len(total) - 1)
    return (total[high] - total[low]) / np.maximum(high - low, 1)


def _judge(thumbs: np.ndarray, start: int, end: int, config: GradualConfig) -> tuple[float, int, int] | None:
    """Whether the frames between two are mixtures of them, in evenly growing shares."""
    span = thumbs[start : end + 1].astype(np.float32)
    steps = np.abs(span[1:] - span[:-1]).mean(axis=1)
    difference = float(np.abs(span[-1] - span[0]).mean()) / 255
    if difference < config.min_difference or steps.max() > 2.5 * steps.mean():  # one jump is a hard cut
        return None
    line, even = span[-1] - span[0], np.linspace(0, 1, len(span), dtype=np.float32)
    share = (span - span[0]) @ line / max(float(line @ line), 1e-6)
    bend = float(np.abs(share - even).max())
    inner = span[1:-1] - (span[0] + even[1:-1, None] * line)
    residual = float(np.abs(inner).mean()) / 255 / difference
    if bend > config.max_bend or residual > config.max_residual:
        return None
    return residual + bend - difference, start, end


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


def _merge(transitions: list[Transition]) -> list[Transition]:
    merged: list[Transition] = []
    for t in sorted(transitions):
        if merged and t.start < merged[-1].end:
            merged[-1] = Transition(merged[-1].start, max(t.end, merged[-1].end), merged[-1].kind)
        else:
            merged.append(t)
    return merged
