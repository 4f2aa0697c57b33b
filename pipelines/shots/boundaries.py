"""Where shots begin and end, decided on stored curves: no picture is looked at here.

The one pass leaves three numbers per frame (`signals.boundary`, `gradual`, `flash`: evidence in [0, 1] where 0.5
is each detector's own bound) beside luma and contrast.  This file says what they amount to, so that a threshold
can be moved in seconds: hard cuts where nothing flashes and nothing fades, fades, dissolves where there is
neither fade nor cut, flashes, damage.  Cost: some numpy passes over a few bytes per frame.
"""

import dataclasses
import itertools
from fractions import Fraction

import numpy as np

from pipelines.shots.fades import FadeConfig, Transition, find_fades, runs
from schemas.shots import Boundary, BoundaryRow

_SCALE = 256
NEAR = 2
"""A cut so many frames beside a transition is the transition's own edge."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryConfig:
    """How much evidence it takes.  Lower finds more, and more that is not there."""

    hard: float = 0.5
    """Boundary evidence from which a frame begins a shot, (0, 1)."""
    dissolve: float = 0.5
    """Evidence from which frames are a dissolve, (0, 1); nothing is stored below 0.3."""
    flash: float = 0.5
    """Evidence from which frames are a flash, (0, 1)."""
    fades: FadeConfig = FadeConfig()
    """Fades; they have no curve of their own but luma and contrast."""

    def __post_init__(self) -> None:
        if not all(0 < bound < 1 for bound in (self.hard, self.dissolve, self.flash)):
            raise ValueError("boundaries: hard, dissolve and flash lie in (0, 1)")


@dataclasses.dataclass(frozen=True, slots=True)
class Times:
    """When frames are shown: `pts[i]` for each, `end` after the last, all in the stream's time base."""

    pts: np.ndarray
    end: int
    time_base: Fraction

    def at(self, frame: int) -> int:
        return int(self.pts[frame]) if frame < len(self.pts) else self.end

    def seconds(self, frame: int) -> float:
        return float(self.at(frame) * self.time_base)

    @property
    def fps(self) -> float:
        """Frames over duration; 25 where there is none."""
        length_s = self.seconds(len(self.pts)) - self.seconds(0) if len(self.pts) else 0.0
        return len(self.pts) / length_s if length_s > 0 else 25.0


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """What one pass left of a video's time line; one entry per frame."""

    times: Times
    luma: np.ndarray
    contrast: np.ndarray
    boundary: np.ndarray
    gradual: np.ndarray
    flash: np.ndarray
    damaged: np.ndarray

    @property
    def num_frames(self) -> int:
        return len(self.boundary)


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A video's boundaries, in order of time."""

    cuts: list[int]
    """First frames of new shots."""
    transitions: list[Transition]
    """Fades and dissolves; damage is not among them."""
    flashes: list[tuple[int, int]]


def as_bytes(curve: np.ndarray) -> np.ndarray:
    """Evidence in [0, 1] as uint8, rounded down so that a bound that is a multiple of 1/256 decides the same."""
    return np.minimum(np.floor(curve * _SCALE), 255).astype(np.uint8)


def as_evidence(stored: np.ndarray) -> np.ndarray:
    """The inverse of `as_bytes`, (frame,) float32."""
    return stored.astype(np.float32) / _SCALE


def find_boundaries(evidence: Evidence, config: BoundaryConfig) -> Found:
    """Decide, in this order: fades, flashes, hard cuts, dissolves."""
    transitions = find_fades(evidence.luma, evidence.contrast, evidence.times.fps, config.fades)
    faded = [(t.start, t.end) for t in transitions]
    flashes = [f for f in runs(evidence.flash >= config.flash) if not _overlaps(*f, faded)]
    cuts = [c for c in np.flatnonzero(evidence.boundary >= config.hard).tolist() if c > 0]
    cuts = [c for c in cuts if not any(start <= c <= end for start, end in flashes)]
    taken = faded + [(c, c + 1) for c in cuts]
    for start, end in _plateaus(evidence.gradual, config.dissolve):
        if not _overlaps(start, end, taken):
            transitions.append(Transition(start, end, Boundary.DISSOLVE.value))
    near = {i for t in transitions for i in range(t.start - NEAR, t.end + NEAR + 1)}
    return Found([c for c in cuts if c not in near], sorted(transitions), flashes)


def _plateaus(curve: np.ndarray, bound: float) -> list[tuple[int, int]]:
    """Runs of equal evidence at or above a bound: two dissolves that touch stay two."""
    edges = [0, *(np.flatnonzero(np.diff(curve)) + 1).tolist(), len(curve)]
    return [(a, b) for a, b in itertools.pairwise(edges) if a < b and curve[a] >= bound]


def _overlaps(start: int, end: int, taken: list[tuple[int, int]]) -> bool:
    return any(start < e and s < end for s, e in taken)


def inner_evidence(evidence: Evidence, found: Found) -> np.ndarray:
    """The boundary curve without the jumps into and out of flashes, which are explained."""
    curve = evidence.boundary.copy()
    for start, end in found.flashes:
        curve[start : end + 1] = 0
    return curve


def boundary_rows(video_id: str, evidence: Evidence, found: Found) -> list[BoundaryRow]:
    """Rows of `boundaries`; the frames of fades, dissolves and damage are just those that no shot holds."""
    kind = np.full(evidence.num_frames, "", dtype=object)
    for t in found.transitions:
        kind[t.start : t.end] = t.kind
    kind[evidence.damaged] = Boundary.DAMAGE.value
    spans = [(c, c, Boundary.HARD.value) for c in found.cuts if not kind[c] and not kind[c - 1]]
    spans += [(start, end, Boundary.FLASH.value) for start, end in found.flashes]
    for name in (Boundary.FADE.value, Boundary.DISSOLVE.value, Boundary.DAMAGE.value):
        spans += [(start, end, name) for start, end in runs(kind == name)]
    strengths = {
        Boundary.HARD.value: evidence.boundary,
        Boundary.DISSOLVE.value: evidence.gradual,
        Boundary.FLASH.value: evidence.flash,
    }
    times = evidence.times
    return [
        BoundaryRow(
            video_id=video_id,
            kind=name,
            start_frame=start,
            end_frame=end,
            start_pts=times.at(start),
            end_pts=times.at(end),
            start_s=times.seconds(start),
            end_s=times.seconds(end),
            evidence=float(strengths[name][start : max(end, start + 1)].max()) if name in strengths else None,
        )
        for start, end, name in sorted(spans)
    ]
