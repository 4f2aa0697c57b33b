"""Freeze: the longest stretch in which the picture repeats, as it does when a stream hangs.

A still shot is no freeze where the source keeps its noise, but encoders throw noise away, and add changes of
their own at key frames.  So a frame repeats its predecessor if it differs by next to nothing against the
clip's contrast (a dark clip differs little anyway), and a stretch goes on over a few other frames.
A clip whose every second frame is doubled (a wrong frame rate) moves in all the others, and is none.
"""

import numpy as np

from pipelines.scorers.base import Scorer, View

_SAME = 0.0015
"""Largest change of a repeated frame, of the contrast."""
_MOVED = 0.06
"""Change that ends a stretch at once, of the contrast."""
_BRIDGE_S = 0.5
"""Longest stretch of changes that an encoder may make inside a freeze, s."""
_REPEATS = 0.6
"""Least share of repeats in a stretch."""


def freeze(view: View) -> dict[str, float]:
    """Longest stretch of repeated frames, as a share of the clip and in seconds."""
    seconds = view.clip.end_s - view.clip.start_s
    change = view.difference[1:] / max(_contrast(view), 1e-3)
    fps = len(view.difference) / seconds if seconds > 0 else 25.0
    share = longest_freeze(change, max(2, round(_BRIDGE_S * fps))) / max(1, len(change))
    return {"longest_share": share, "longest_s": share * seconds}


def _contrast(view: View) -> float:
    """Median contrast inside the crop, in units of the whole picture's change.

    Black bars raise the contrast of a picture and lower its change, so a letterboxed clip would seem to stand still.
    """
    if view.clip.crop is None or not len(view.grey):
        return float(np.median(view.contrast))
    share = view.clip.crop[2] * view.clip.crop[3] / max(1, view.picture_size[0] * view.picture_size[1])
    return float(np.median(view.grey.std(axis=(1, 2)))) * share


def longest_freeze(change: np.ndarray, bridge: int) -> int:
    """Frames in the longest stretch of repeats with gaps of at most `bridge` frames of small changes.

    Args:
        change: Change to the frame before over the contrast, one per frame.
    """
    repeats = np.flatnonzero(change < _SAME)
    best, start = 0, 0
    for position, frame in enumerate(repeats):
        if position and (
            frame - repeats[position - 1] > bridge + 1 or change[repeats[position - 1] : frame + 1].max() > _MOVED
        ):
            start = position
        length = int(frame - repeats[start] + 1)
        if (position - start + 1) >= _REPEATS * length:
            best = max(best, length)
    return best


SCORER = Scorer(
    "freeze",
    {
        "longest_share": ("Longest stretch of repeated frames over the clip.", "", "[0, 1]"),
        "longest_s": ("Longest stretch of repeated frames.", "s", "[0, inf)"),
    },
    freeze,
    version=3,
)
