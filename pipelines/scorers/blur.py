"""Blur: how sharp the sharpest things in the clip are.

The variance of the Laplacian depends on resolution and on contrast.  The first is gone, because all
signals come from a small picture of fixed area; the second is divided out, so that a foggy morning is not
blurred.  The proxies are asked two more questions.  `edge` is the steepest step between neighbouring pixels over
the contrast of the whole picture: low in a picture out of focus, but also where all contrasts lie in a large
bright thing.  `step` asks of the strongest edges alone which share of their height lies between two neighbouring
pixels: low where edges are soft, but not where grain is taken for an edge.  `focus` is their geometric mean,
which is low only if both are; each alone confuses a tenth of blurred shots with sound ones.
Cost: about 1 ms per proxy, of six.
"""

import numpy as np

from pipelines.scorers.base import Scorer, View
from pipelines.video.frames import nearest_indices

_PROXIES = 6
_REACH = 5
"""Pixels over which an edge's whole height is taken."""
_STRONGEST = 99
"""Percentile of heights from which on an edge is strong."""
_LEAST_HEIGHT = 0.03
"""Smallest height of an edge, luma in [0, 1]; less is grain."""
_SHARPEST = 90
"""Percentile of the strong edges' shares: soft ones beside sharp ones do not blur a picture."""
_FEWEST = 20


def blur(view: View) -> dict[str, float | None]:
    """Median sharpness, the same over the contrast, and what the proxies' edges say."""
    contrast = np.maximum(view.contrast.astype(np.float64), 0.01)
    relative = view.sharpness / (contrast * contrast)
    edge, step = _edge(view.grey), _step(view.grey)
    return {
        "sharpness": float(np.median(view.sharpness)),
        "relative": float(np.median(relative)),
        "edge": edge,
        "step": step,
        "focus": None if edge is None or step is None else float(np.sqrt(edge * step)),
    }


def _edge(grey: np.ndarray) -> float | None:
    if not len(grey) or min(grey.shape[1:]) < 3:
        return None
    steps = np.abs(grey[:, :, 1:] - grey[:, :, :-1])
    spread = np.percentile(grey, 98, axis=(1, 2)) - np.percentile(grey, 2, axis=(1, 2))
    steep = np.percentile(steps, 99.5, axis=(1, 2))
    return float(np.median(steep / np.maximum(spread, 0.05)))


def _step(grey: np.ndarray) -> float | None:
    """Share of a strong edge's height between two neighbouring pixels; 1 where there is no strong edge."""
    if not len(grey) or min(grey.shape[1:]) <= _REACH + 1:
        return None if not len(grey) else 1.0
    found = []
    for frame in grey[nearest_indices(len(grey), _PROXIES)]:
        shares = np.concatenate([_shares(frame), _shares(frame.T)])
        found.append(float(np.percentile(shares, _SHARPEST)) if len(shares) > _FEWEST else 1.0)
    return float(np.median(found))


def _shares(frame: np.ndarray) -> np.ndarray:
    """Of each strong edge along the rows."""
    height = np.abs(frame[:, _REACH:] - frame[:, :-_REACH])
    steps = np.abs(frame[:, 1:] - frame[:, :-1])
    largest = np.max([steps[:, i : i + height.shape[1]] for i in range(_REACH)], axis=0)
    strong = height >= max(float(np.percentile(height, _STRONGEST)), _LEAST_HEIGHT)
    return np.asarray(np.minimum(largest[strong] / height[strong], 1.0))


SCORER = Scorer(
    "blur",
    {
        "sharpness": ("Median variance of the Laplacian of the small picture.", "", "[0, inf)"),
        "relative": ("The same over the squared contrast.", "", "[0, inf)"),
        "edge": ("Steepest step between neighbouring proxy pixels over the contrast.", "", "[0, inf)"),
        "step": ("Share of a strong edge's height that lies between two neighbouring pixels.", "", "[0, 1]"),
        "focus": ("Geometric mean of `edge` and `step`.", "", "[0, inf)"),
    },
    blur,
    version=2,
)
