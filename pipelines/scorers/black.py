"""Black: frames with nothing on them, as between the parts of a film, at a fade's bottom or after a lost signal.

A frame is black if it is dark and flat at once: a night scene with one lamp is dark and not flat.
From the full-rate signals alone; cost: microseconds.  ffmpeg's `blackdetect` asks for 98 % of the pixels
under 10 % of the range; this asks the same of mean and spread.
"""

import itertools

import numpy as np

from pipelines.scorers.base import Scorer, View

_DARK, _FLAT = 0.03, 0.02
"""Largest mean luma of a black frame, and its largest standard deviation, [0, 1]."""


def black(view: View) -> dict[str, float]:
    """Share of black frames, and the longest run of them in seconds."""
    is_black = (view.luma < _DARK) & (view.contrast < _FLAT)
    longest = max((sum(1 for _ in run) for value, run in itertools.groupby(is_black.tolist()) if value), default=0)
    seconds = view.clip.end_s - view.clip.start_s
    return {"share": float(np.mean(is_black)), "longest_s": longest * seconds / max(1, len(is_black))}


SCORER = Scorer(
    "black",
    {
        "share": ("Share of frames that are black.", "", "[0, 1]"),
        "longest_s": ("Longest run of black frames.", "s", "[0, inf)"),
    },
    black,
)
