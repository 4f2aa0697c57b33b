"""Fades through black or white, with their extent, out of two stored curves.

A fade is a run of (nearly) uniform black or white frames with a ramp of contrast on at least one side.  A dip
too short to become uniform is found as PySceneDetect's `ThresholdDetector` finds it: the mean brightness stays
under 12 of 255.  A blank stretch that is long stays a shot of its own; its ramps are fades.

All it reads is `signals.luma` and `signals.contrast`, so every setting here can be moved without decoding.
"""

import dataclasses

import numpy as np

from schemas.shots import Boundary

_DARK, _BRIGHT = 0.12, 0.88
_BLACK, _WHITE = 0.02, 0.98
_JUMP = 0.75


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FadeConfig:
    """How fades are found."""

    blank_contrast: float = 0.03
    """Contrast under which a dark or bright frame counts as blank, [0, 1]."""
    dip_luma: float = 12 / 255
    """Mean luma under which a short dip counts as black, [0, 1]; PySceneDetect's threshold."""
    dip_contrast: float = 0.06
    """Largest contrast of such a dip, [0, 1]; drawings and faces on black have more."""
    max_gap_s: float = 1.0
    """A blank run up to this length belongs to its fade; a longer one is a shot of its own, s."""
    max_ramp_s: float = 2.0
    """Longest ramp on one side, s."""

    def __post_init__(self) -> None:
        if min(self.blank_contrast, self.dip_luma) < 0 or min(self.max_gap_s, self.max_ramp_s) <= 0:
            raise ValueError("fades: blank_contrast and dip_luma are at least 0, the lengths above 0")


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Transition:
    """Frames `[start, end)` that show two shots, or none."""

    start: int
    end: int
    kind: str


def find_fades(luma: np.ndarray, contrast: np.ndarray, fps: float, config: FadeConfig) -> list[Transition]:
    """Fades through black or white, each with its ramps.

    Args:
        luma, contrast: (frame,) in [0, 1].
    """
    even = contrast < config.blank_contrast
    blank = even & ((luma < _DARK) | (luma > _BRIGHT))
    empty = even & ((luma < _BLACK) | (luma > _WHITE))
    if not len(blank) or empty.all():
        return []
    reach, gap = max(1, round(config.max_ramp_s * fps)), config.max_gap_s * fps
    for start, end in runs(luma < config.dip_luma):
        darkest = start + int(np.argmin(luma[start:end]))
        if end - start <= gap and contrast[darkest] < config.dip_contrast:
            blank[darkest] = True
    found = []
    short = [(start, end) for start, end in runs(blank) if end - start <= gap]
    for start, end in sorted({*short, *runs(empty)}):  # a long run that is not empty is a very dark picture, a shot
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


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Stretches `[start, end)` where a mask holds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def _ramp(contrast: np.ndarray, origin: int, step: int, reach: int) -> int:
    """Walk from a blank frame while contrast climbs; returns the last frame of the climb, exclusive upwards.

    The climb ends where a step is under a quarter of the mean step so far.  If one step makes most of it, it was a
    jump (into or out of a flash, or a cut), and there is no ramp.
    """
    position, climbed, largest = origin, 0.0, 0.0
    while 0 <= position + step < len(contrast) and abs(position - origin) < reach:
        gain = float(contrast[position + step] - contrast[position])
        taken = abs(position - origin)
        usual = climbed / taken if taken else 0.0
        if gain <= 1e-4 or (taken >= 2 and gain < 0.25 * usual) or (taken >= 1 and gain > 6 * max(usual, 0.01)):
            break
        climbed += gain
        largest = max(largest, gain)
        position += step
    return position if largest <= _JUMP * climbed else origin


def _merge(transitions: list[Transition]) -> list[Transition]:
    merged: list[Transition] = []
    for t in sorted(transitions):
        if merged and t.start < merged[-1].end:
            merged[-1] = Transition(merged[-1].start, max(t.end, merged[-1].end), merged[-1].kind)
        else:
            merged.append(t)
    return merged
