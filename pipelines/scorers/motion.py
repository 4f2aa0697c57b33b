"""Motion: how much the picture changes.  A static shot teaches a video model nothing that an image does not.

`mean` is the mean luma change per second of all frames (from the full-rate signals, so that a low frame
rate is not mistaken for fast motion); `moving_share` is the share of pixels that changed visibly between
the first proxies and later ones, which a still camera with sensor noise does not raise.
"""

import numpy as np

from pipelines.scorers.base import Scorer, View

_VISIBLE = (0.01, 0.06)
"""Change of luma that counts as visible: a sixth of the picture's range, within these bounds."""


def motion(view: View) -> dict[str, float | None]:
    """Mean change per second, and share of the picture that moves; a one-frame clip does not move."""
    seconds = view.clip.end_s - view.clip.start_s
    mean = float(view.difference.sum() / seconds) if seconds > 0 else 0.0
    return {"mean": mean, "moving_share": _moving_share(view.grey)}


def _moving_share(grey: np.ndarray) -> float | None:
    if not len(grey):
        return None
    if len(grey) < 2:
        return 0.0
    smooth = _box3(grey)
    spread = smooth.max(axis=0) - smooth.min(axis=0)
    dark, bright = np.percentile(smooth, (2, 98))
    visible = min(max((bright - dark) / 6, _VISIBLE[0]), _VISIBLE[1])
    return float((spread > visible).mean())


def _box3(grey: np.ndarray) -> np.ndarray:
    """Mean over 3 x 3 pixels, to lower noise and JPEG blocks."""
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = grey.shape[1:]
    total = sum(padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3))
    return np.asarray(total / 9)


SCORER = Scorer(
    "motion",
    {
        "mean": ("Mean absolute luma change per second.", "1/s", "[0, inf)"),
        "moving_share": ("Share of the picture that changes visibly between proxies.", "", "[0, 1]"),
    },
    motion,
    version=2,
)
