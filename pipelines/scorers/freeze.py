"""Freeze: the longest stretch in which the picture repeats exactly, as it does when a stream hangs.

A still shot is no freeze: it keeps its noise.  Encoders remove some of it, so the bound is close to zero.
A clip whose every second frame is doubled (a wrong frame rate) has many short repeats and no long one.
"""

import numpy as np

from pipelines.scorers.base import Scorer, View

_SAME = 0.0006


def freeze(view: View) -> dict[str, float]:
    """Longest run of repeated frames, as a share of the clip and in seconds."""
    still = view.difference[1:] < _SAME
    edges = np.flatnonzero(np.diff(np.concatenate([[0], still.astype(np.int8), [0]])))
    longest = int((edges[1::2] - edges[::2]).max(initial=0))
    share = longest / max(1, len(still))
    return {"longest_share": share, "longest_s": share * (view.clip.end_s - view.clip.start_s)}


SCORER = Scorer(
    "freeze",
    {
        "longest_share": ("Longest run of repeated frames over the clip.", "", "[0, 1]"),
        "longest_s": ("Longest run of repeated frames.", "s", "[0, inf)"),
    },
    freeze,
)
