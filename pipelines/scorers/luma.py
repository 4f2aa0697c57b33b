"""Luma: how bright the clip is, and how much of it is dark."""

import numpy as np

from pipelines.scorers.base import Scorer, View

_DARK_FRAME = 0.1


def luma(view: View) -> dict[str, float | None]:
    """Mean luma, 95th percentile of the proxies' pixels, share of dark frames."""
    brightest = float(np.percentile(view.grey, 95)) if view.grey.size > 1 else None
    return {
        "mean": float(view.luma.mean()),
        "bright": brightest,
        "dark_share": float((view.luma < _DARK_FRAME).mean()),
    }


SCORER = Scorer(
    "luma",
    {
        "mean": ("Mean luma.", "", "[0, 1]"),
        "bright": ("Luma that 5 % of the pixels exceed.", "", "[0, 1]"),
        "dark_share": ("Share of frames whose mean luma is under 0.1.", "", "[0, 1]"),
    },
    luma,
)
