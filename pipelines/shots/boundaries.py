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
    """Decide, in this order: fades, flashes, dissolves, hard cuts.

    White for a moment is a flash where it is most of what was taken for a fade, and else the middle of the fade.
    A cut inside a dissolve, or right beside one, is the stronger of the two.  A fade that jumps at one end (a cut
    to black that then brightens) has a hard cut there.
    """
    fades = find_fades(evidence.luma, evidence.contrast, evidence.times.fps, config.fades)
    flashes = runs(evidence.flash >= config.flash)
    fades = [f for f in fades if not any(2 * (min(b, f.end) - max(a, f.start)) >= f.end - f.start for a, b in flashes)]
    faded = [(t.start, t.end) for t in fades]
    flashes = [f for f in flashes if not _overlaps(*f, faded)]
    cuts = [c for c in np.flatnonzero(evidence.boundary >= config.hard).tolist() if c > 0]
    cuts = [c for c in cuts if not any(start <= c <= end for start, end in flashes)]
    cuts = _apart(cuts, evidence.boundary)
    transitions, last = list(fades), evidence.num_frames
    for start, end in _plateaus(evidence.gradual, config.dissolve):
        strong = [
            c for c in cuts if start - NEAR <= c <= end + NEAR and evidence.boundary[c] >= evidence.gradual[start]
        ]
        if not strong and not _overlaps(start, end, faded):  # one that runs into the file's end has no frame after it
            low, high = 0 if start <= NEAR else start, last if end >= last - NEAR else end
            transitions.append(Transition(low, high, Boundary.DISSOLVE.value))
    transitions.sort()
    near = {i for t in transitions for i in range(t.start - NEAR, t.end + NEAR + 1)}
    jumps = {edge for t in fades for edge in (t.start, t.end)}
    return Found([c for c in cuts if c not in near or c in jumps], transitions, flashes)


def _apart(cuts: list[int], curve: np.ndarray) -> list[int]:
    """The stronger of two cuts within two frames, the first of equals: a blended frame between shots is no shot."""
    kept: list[int] = []
    for cut in cuts:
        if not kept or cut - kept[-1] > NEAR:
            kept.append(cut)
        elif curve[cut] > curve[kept[-1]]:
            kept[-1] = cut
    return kept


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
    damage = Boundary.DAMAGE.value
    spans = [(c, c, Boundary.HARD.value) for c in found.cuts if damage not in (kind[c], kind[c - 1])]
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
