"""Jitter: motion that stutters: frames that are doubled or missing, or jumps between frames.

Smooth motion changes the picture about equally from frame to frame.  `doubled_share` counts frames that
repeat the one before while their neighbours move (24 fps film in a 30 fps file: one in five); `jump` says how
much the largest changes stand out of those around them, which a frame that is missing, or a cut that was
missed, does.  A still clip has neither.  From the full-rate signals alone; cost: microseconds.
Open-Sora-Plan drops clips whose neighbouring frames differ too much (LPIPS above 0.3); this needs no network.
"""

import numpy as np

from pipelines.scorers.base import Scorer, View

_MOVES = 0.002
"""Least median change of a clip that moves, luma in [0, 1]."""
_REPEATS = 0.15
"""A frame is doubled if it changes by less than this share of the larger change beside it."""
_AROUND = 5
"""Frames whose median is what a change is compared with; odd."""


def jitter(view: View) -> dict[str, float]:
    """Share of doubled frames, and the 99th percentile of changes over those around them."""
    change = view.difference[1:].astype(np.float64)
    if len(change) < _AROUND:
        return {"doubled_share": 0.0, "jump": 0.0}
    beside = np.maximum(np.concatenate([[0.0], change[:-1]]), np.concatenate([change[1:], [0.0]]))
    doubled = (change < _REPEATS * beside) & (beside > _MOVES)
    padded = np.pad(change, _AROUND // 2, mode="edge")
    around = np.median(np.lib.stride_tricks.sliding_window_view(padded, _AROUND), axis=1)
    jumps = np.maximum(change - around, 0.0) / np.maximum(around, _MOVES)
    return {"doubled_share": float(doubled.mean()), "jump": float(np.percentile(jumps, 99))}


SCORER = Scorer(
    "jitter",
    {
        "doubled_share": ("Share of frames that repeat the one before while their neighbours move.", "", "[0, 1]"),
        "jump": ("How far the largest change of a frame exceeds those around it, relative.", "", "[0, inf)"),
    },
    jitter,
)
