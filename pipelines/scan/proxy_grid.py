"""Which frames of a video get a proxy: a pure function of its times and of its cuts.

An even grid in time that starts anew at every cut, so that equal shots have equal proxies; the first and the last
frame of the video, and both frames at a cut.  A cut that follows another within half a step is noise
(flicker must not fill the disk).  A grid that has run for 20 s without a cut starts anew at the next multiple of
20 s: so a choice depends on what is at most 40 s back, and a part of a long video can choose its own proxies.

A part that begins inside a video does not know which grid it is in before its first cut (or 40 s at most).
Until then every frame is a candidate, and whoever joins the parts picks among them.

Cuts are those of PySceneDetect's `AdaptiveDetector` on the `change` of the frames; a few frames late, because
it looks at neighbours on both sides.  Cost: about 3 us per frame.
"""

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction

LONGEST_GRID_S = 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveRule:
    """PySceneDetect's `AdaptiveDetector`, without its pictures."""

    ratio: float
    """Change of a frame over the mean change of its neighbours."""
    min_change: float
    """Smallest mean HSV change, 0-255."""
    window: int
    """Neighbours on either side."""

    def is_cut(self, changes: Sequence[float], frame: int) -> bool:
        """Whether a shot begins at that frame; never where neighbours are missing."""
        first, end = frame - self.window, frame + self.window + 1
        if first < 0 or end > len(changes):
            return False
        here = changes[frame]
        if here < self.min_change:
            return False
        mean = (sum(changes[first:frame]) + sum(changes[frame + 1 : end])) / (2 * self.window)
        return mean < 1e-5 or here / mean >= self.ratio


class ProxyGrid:
    """Takes frames in display order and says, a few frames late, which of them get a proxy."""

    def __init__(self, time_base: Fraction, proxy_fps: float, rule: AdaptiveRule, *, is_start: bool = True) -> None:
        """Args:
        is_start: The first frame is the video's first; else which grid is running is not known yet.
        """
        per_tick = time_base * Fraction(proxy_fps).limit_denominator(1000)
        self._scale, self._step = per_tick.numerator, per_tick.denominator
        self._longest = self._step * math.ceil(LONGEST_GRID_S * Fraction(proxy_fps).limit_denominator(1000))
        self._rule, self._is_start = rule, is_start
        self._ticks: list[int] = []
        self._changes: list[float] = []
        self._decided = 0
        self._origin: int | None = None
        """When the running grid began; None while it is not known."""
        self._cell = 0
        self._last_raw: int | None = None
        """When the detector last fired, whether that counted or not."""
        self._last_cut: int | None = None
        self._sure_from: int | None = None
        """Since when every firing of the detector is known."""
        self._next_is_cut = False

    def add(self, pts: Sequence[int], changes: Sequence[float]) -> list[int]:
        """Take the next frames; returns the indices that were chosen among those that can be decided now."""
        self._ticks += [p * self._scale for p in pts]
        self._changes += changes
        return self._decide(len(self._ticks) - 1 - self._rule.window)

    def finish(self, *, is_end: bool = True) -> list[int]:
        """No frame follows: decide the rest.  The last frame is chosen if it is the video's."""
        chosen = self._decide(len(self._ticks))
        last = len(self._ticks) - 1
        return [*chosen, last] if is_end and last >= 0 and last not in chosen else chosen

    @property
    def decided(self) -> int:
        """Frames before this index need not be held any longer."""
        return self._decided

    def _decide(self, end: int) -> list[int]:
        """Frames up to `end` have their neighbours, and so has the one after each."""
        chosen = []
        for frame in range(self._decided, end):
            begins, self._next_is_cut = self._next_is_cut, self._cut_at(frame + 1)
            if self._on_grid(frame, begins) or self._next_is_cut:
                chosen.append(frame)
            self._decided = frame + 1
        return chosen

    def _cut_at(self, frame: int) -> bool:
        """Whether a cut that counts is there; remembers that the detector fired."""
        if frame >= len(self._ticks):
            return False
        if not self._is_start and frame <= self._rule.window:  # the first change of a part is not known
            self._sure_from = self._ticks[frame]
            return False
        if not self._rule.is_cut(self._changes, frame):
            return False
        now, before = self._ticks[frame], self._last_raw
        self._last_raw = now
        if before is not None and 2 * (now - before) < self._step:
            return False
        return self._is_start or self._origin is not None or 2 * (now - (self._sure_from or 0)) >= self._step

    def _on_grid(self, frame: int, begins: bool) -> bool:
        now = self._ticks[frame]
        if begins or (frame == 0 and self._is_start):
            self._origin = self._last_cut = now
            self._cell = 0
            return True
        if frame and (multiple := now // self._longest * self._longest) > self._ticks[frame - 1]:
            self._start_anew(multiple)
        if self._origin is None:
            return True
        cell = (now - self._origin) // self._step
        moved, self._cell = cell != self._cell, cell
        return moved

    def _start_anew(self, multiple: int) -> None:
        """At a multiple of the longest grid, if there was no cut for as long."""
        if self._origin is None:
            quiet = self._sure_from is not None and self._sure_from <= multiple - self._longest
            if not quiet or (self._last_raw is not None and self._last_raw > multiple - self._longest):
                return
        elif self._last_cut is not None and self._last_cut > multiple - self._longest:
            return
        self._origin, self._cell = multiple, -1
