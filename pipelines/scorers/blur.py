"""Blur: how sharp the sharpest things in the clip are.

The variance of the Laplacian depends on resolution and on contrast.  The first is gone, because all
signals come from a small picture of fixed area; the second is divided out, so that a foggy morning is not
blurred.  `edge` is the same question asked of the proxies: the steepest step between neighbouring pixels
over the contrast, which a picture out of focus cannot have.
"""

import numpy as np

from pipelines.scorers.base import Scorer, View


def blur(view: View) -> dict[str, float | None]:
    """Median sharpness, the same over the contrast, and the steepness of edges in the proxies."""
    contrast = np.maximum(view.contrast.astype(np.float64), 0.01)
    relative = view.sharpness / (contrast * contrast)
    return {
        "sharpness": float(np.median(view.sharpness)),
        "relative": float(np.median(relative)),
        "edge": _edge(view.grey),
    }


def _edge(grey: np.ndarray) -> float | None:
    if not len(grey) or min(grey.shape[1:]) < 3:
        return None
    steps = np.abs(grey[:, :, 1:] - grey[:, :, :-1])
    spread = np.percentile(grey, 98, axis=(1, 2)) - np.percentile(grey, 2, axis=(1, 2))
    steep = np.percentile(steps, 99.5, axis=(1, 2))
    return float(np.median(steep / np.maximum(spread, 0.05)))


SCORER = Scorer(
    "blur",
    {
        "sharpness": ("Median variance of the Laplacian of the small picture.", "", "[0, inf)"),
        "relative": ("The same over the squared contrast.", "", "[0, inf)"),
        "edge": ("Steepest step between neighbouring proxy pixels over the contrast.", "", "[0, inf)"),
    },
    blur,
)
