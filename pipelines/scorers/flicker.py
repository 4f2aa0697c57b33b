"""Flicker: brightness that jumps to and fro between neighbouring frames: strobes, mains hum, broken encodes.

Motion and fades change brightness in one direction over several frames; flicker turns back at once, so
the distance of each frame from the mean of its two neighbours is measured.  Doubled frames (24 fps film
in a 60 fps file) hide the turn, so the same is asked at distances of one and two frames.
"""

import numpy as np

from pipelines.scorers.base import Scorer, View


def flicker(view: View) -> dict[str, float]:
    """Median distance of a frame's luma from its neighbours' mean; 0 for fewer than three frames."""
    return {"amplitude": max(_turns(view.luma, 1), _turns(view.luma, 2))}


def _turns(luma: np.ndarray, distance: int) -> float:
    if len(luma) < 2 * distance + 1:
        return 0.0
    middle = luma[distance:-distance]
    return float(np.median(np.abs(middle - (luma[: -2 * distance] + luma[2 * distance :]) / 2)))


SCORER = Scorer(
    "flicker", {"amplitude": ("Median distance of a frame's luma from its neighbours'.", "", "[0, 1]")}, flicker
)
