"""Contrast: how far apart light and dark are; fog, haze and washed-out transfers have little.

`mean` is the standard deviation of luma, the mean over all frames (from the full-rate signals); `range` is the
distance between the 2nd and the 98th percentile of the proxies' pixels, which one lamp in the dark
does not raise.  Cost: microseconds beside decoding the proxies, which other scores share.
"""

import numpy as np

from pipelines.scorers.base import Scorer, View


def contrast(view: View) -> dict[str, float | None]:
    """Mean standard deviation of luma, and the range that 96 % of the pixels span."""
    if not len(view.grey):
        return {"mean": float(view.contrast.mean()), "range": None}
    dark, bright = np.percentile(view.grey, (2, 98))
    return {"mean": float(view.contrast.mean()), "range": float(bright - dark)}


SCORER = Scorer(
    "contrast",
    {
        "mean": ("Standard deviation of luma, mean over the frames.", "", "[0, 1]"),
        "range": ("Distance of the 2nd and the 98th percentile of luma over the proxies.", "", "[0, 1]"),
    },
    contrast,
)
