"""Flashes: a few odd frames, then the same picture again.  Two jumps, and neither is a cut.

A photographer's flash, lightning or a dropped frame makes the strongest change there is.  Each frame at which
the picture jumps out of calm is asked whether, within `max_s`, a frame comes that looks like the one before the
jump; how much of the deviation is left then gives the evidence, and the frames between get it.  A flash that dies
away slowly is found too, since only its end is compared; the bottom of a fade and flickering light are none, because
no calm comes before or after them.  Cost: at each jump some differences of 384 bytes.
"""

import dataclasses

import numpy as np

from pipelines.shots.gradual import speeds

_FLOOR = 0.25
"""Evidence that is not worth writing down."""
_CALM = 3
"""Frames before and after a flash that must be calm."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FlashConfig:
    """What counts as the same picture again."""

    max_s: float = 0.2
    """A deviation that ends within this time in the picture it left is a flash, s."""
    max_left: float = 0.35
    """How much of the flash's own change may remain between the pictures round it, [0, 1]."""
    min_step: float = 0.03
    """Smallest mean change of the thumbnail into a flash, [0, 1]."""
    min_calm: float = 2.5
    """That change over the largest one in the three frames before the flash, and in the three after it."""

    def __post_init__(self) -> None:
        if self.max_s <= 0 or not 0 < self.max_left < 1:
            raise ValueError("flashes: max_s must be positive, max_left in (0, 1)")


def flash_evidence(thumbs: np.ndarray, seconds: np.ndarray, config: FlashConfig) -> np.ndarray:
    """Evidence that a frame belongs to a flash, (frame,) float32 in [0, 1], 0.5 at the bound.

    Args:
        thumbs: (frame, 384) uint8 thumbnails.
        seconds: When each frame is shown.
    """
    steps = speeds(thumbs)
    padded = np.pad(steps, (_CALM, 0))
    before = np.max([padded[_CALM - k : _CALM - k + len(steps)] for k in range(1, _CALM + 1)], axis=0)
    before[:_CALM] = np.inf
    found = np.zeros(len(steps), np.float32)
    for start in np.flatnonzero(steps >= np.maximum(config.min_step, config.min_calm * before)).tolist():
        last = int(np.searchsorted(seconds, seconds[start] + config.max_s + 1e-6, side="right"))
        span = thumbs[start - 1 : last].astype(np.int16)
        change = np.abs(span - span[0]).mean(axis=1)
        best, end = 0.0, start
        for i in range(2, len(span)):
            left = change[i] / max(float(change[1:i].max()), 1e-3)
            if (evidence := 0.5 * config.max_left / max(left, 1e-3)) > 1.02 * best:
                best, end = evidence, start - 1 + i
        calm = float(steps[end + 1 : end + 1 + _CALM].max(initial=0)) * config.min_calm <= float(steps[start])
        if best >= _FLOOR and calm:
            found[start:end] = np.maximum(found[start:end], min(best, 1.0))
    return found
