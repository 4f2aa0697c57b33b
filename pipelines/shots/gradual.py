"""Gradual transitions and their extent: fades through black or white, and dissolves.

A fade is a run of (nearly) uniform black or white frames with a ramp of contrast on at least one side;
PySceneDetect's `ThresholdDetector` names further candidates.  A dissolve is a stretch where every frame
is a mixture of the frame before and the frame after it: on 16 x 16 thumbnails the frames at a quarter,
half and three quarters lie on the line between both ends, and the picture changes faster than on either
side (a pan changes evenly, and is none).  After Koala-36M (arXiv:2410.08260), which looks for gradual
changes over 8 frames, with the extent measured instead of a fixed trim.

Extents are trimmed from the shots: peers cut a fixed 0.5 s from every end, a third of a 3 s shot.
Cost: a few numpy passes over 384 bytes per frame.
"""

import dataclasses

import numpy as np

from schemas.shots import Boundary

_DARK, _BRIGHT = 0.12, 0.88


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GradualConfig:
    """How gradual transitions are found."""

    blank_contrast: float = 0.03
    """Contrast under which a dark or bright frame counts as blank, [0, 1]."""
    max_gap_s: float = 1.0
    """A blank run up to this length belongs to its fade; a longer one is a shot of its own, s."""
    max_ramp_s: float = 2.0
    """Longest ramp on one side, s."""
    half_lengths_s: tuple[float, ...] = (0.17, 0.25, 0.35, 0.5, 0.75)
    """Half lengths of dissolves that are tried, s."""
    min_difference: float = 0.045
    """Smallest mean difference of the thumbnails at both ends, [0, 1]."""
    max_residual: float = 0.12
    """Largest distance from the line between both ends, relative to their difference."""
    min_speed_up: float = 2.5
    """How much faster the picture changes inside than beside."""


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
    """Dissolves, longest evidence first, without overlap."""
    num = len(thumbs)
    if num < 8:
        return []
    speed = np.concatenate([[0.0], _distance(thumbs[1:], thumbs[:-1])])
    candidates: list[tuple[float, int, int]] = []
    for seconds in config.half_lengths_s:
        half = max(3, round(seconds * fps))
        if 2 * half + 1 <= num:
            candidates += _candidates(thumbs, speed, half, config)
    chosen: list[Transition] = []
    for _, start, end in sorted(candidates):
        if all(end <= t.start or start >= t.end for t in chosen):
            low, high = _extent(thumbs, start, end)
            chosen.append(Transition(low, high, Boundary.DISSOLVE.value))
    return _merge(sorted(chosen))


def _candidates(
    thumbs: np.ndarray, speed: np.ndarray, half: int, config: GradualConfig
) -> list[tuple[float, int, int]]:
    """(score, start, end) of every centre that passes; lower is better.  In blocks, to bound the memory."""
    found = []
    quarter = max(1, half // 2)
    total = np.concatenate([[0.0], np.cumsum(speed)])
    num = len(thumbs)
    for block in range(half, num - half, 4096):
        centre = np.arange(block, min(block + 4096, num - half))
        first = thumbs[centre - half].astype(np.float32)
        last = thumbs[centre + half].astype(np.float32)
        difference = np.abs(first - last).mean(axis=1) / 255
        residual = np.zeros(len(centre))
        for offset in (-quarter, 0, quarter):
            share = (offset + half) / (2 * half)
            line = first + (last - first) * share
            residual += np.abs(thumbs[centre + offset] - line).mean(axis=1) / 255 / 3
        relative = residual / np.maximum(difference, 1e-6)
        inside = (total[centre + half + 1] - total[centre - half + 1]) / (2 * half)
        peak = np.maximum.reduce([speed[centre + k] for k in range(-half + 1, half + 1)])
        before = _mean_speed(total, centre - 2 * half, centre - half)
        after = _mean_speed(total, centre + half + 1, centre + 2 * half + 1)
        beside = np.maximum(np.maximum(before, after), 1e-3)
        passes = (
            (difference > config.min_difference)
            & (relative < config.max_residual)
            & (inside > config.min_speed_up * beside)
            & (peak < 3 * inside)  # one jump is a hard cut
        )
        score = relative - 0.1 * inside / beside / 10 - 0.02 * half / 24
        found += [(float(score[i]), int(centre[i] - half), int(centre[i] + half)) for i in np.flatnonzero(passes)]
    return found


def _mean_speed(total: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    low, high = np.clip(start + 1, 0, len(total) - 1), np.clip(end, 0, len(total) - 1)
    return (total[high] - total[low]) / np.maximum(high - low, 1)


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    out = np.empty(len(a))
    for block in range(0, len(a), 4096):
        span = slice(block, block + 4096)
        out[span] = np.abs(a[span].astype(np.int16) - b[span]).mean(axis=1) / 255
    return out


def _extent(thumbs: np.ndarray, start: int, end: int) -> tuple[int, int]:
    """Where the mixture begins and ends: the share of the second picture leaves 3 % and reaches 97 %."""
    span = thumbs[start : end + 1].astype(np.float32)
    line = span[-1] - span[0]
    share = (span - span[0]) @ line / max(float(line @ line), 1e-6)
    inside = np.flatnonzero((share > 0.03) & (share < 0.97))
    if not len(inside):
        return start, end
    return start + int(inside[0]), start + int(inside[-1]) + 1


def _merge(transitions: list[Transition]) -> list[Transition]:
    merged: list[Transition] = []
    for t in sorted(transitions):
        if merged and t.start < merged[-1].end:
            merged[-1] = Transition(merged[-1].start, max(t.end, merged[-1].end), merged[-1].kind)
        else:
            merged.append(t)
    return merged
