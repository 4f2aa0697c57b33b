"""Text: how much of the picture burnt-in writing covers.

Writing is thin, has high contrast to what is right beside it, stands in rows of several pieces of about
one height, and stays for a while.  Thin bright and dark strokes are found by top-hat and black-hat filters,
kept where two neighbouring proxies agree, joined along rows, and a row counts if it is made of at least
four pieces.  No letters are read: a detector of rows of strokes, not OCR; signs in the scene count as well.
Follows the idea of stroke width (Epshtein et al., CVPR 2010); Open-Sora-Plan crops at 20 %, others drop
at 2 to 7 % of the area.  Cost: about 1 ms per proxy.
"""

import itertools

import numpy as np

from pipelines.scorers.base import Scorer, View

_STROKE = 0.22
"""Contrast of a stroke to its surroundings, of [0, 1]."""
_PIECES = 4
_ROW_HEIGHT = (0.03, 0.25)
"""Height of a row of text, in short sides."""


def text(view: View) -> dict[str, float | None]:
    """Mean and largest share of the picture under rows of strokes, over pairs of neighbouring proxies."""
    if not len(view.grey):
        return {"area": None, "peak": None}
    masks = [strokes(f) for f in view.grey]
    pairs = list(itertools.pairwise(masks)) or [(masks[0], masks[0])]
    areas = [row_area(a & b) for a, b in pairs]
    return {"area": float(np.mean(areas)), "peak": float(np.max(areas))}


def strokes(grey: np.ndarray) -> np.ndarray:
    """Pixels of thin bright strokes that have a dark one beside them, (height, width) bool."""
    import cv2

    size = max(3, round(min(grey.shape) * 0.055) | 1)
    kernel = np.ones((size, size), np.uint8)
    bright = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, kernel) > _STROKE
    dark = (cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, kernel) > _STROKE).astype(np.uint8)
    beside = cv2.dilate(dark, np.ones((3, 3), np.uint8)) > 0
    return np.asarray(bright & beside)


def row_area(mask: np.ndarray) -> float:
    """Share of the picture in boxes of rows of strokes."""
    import cv2

    height, width = mask.shape
    short = min(height, width)
    reach = max(3, round(0.07 * short))
    joined = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((1, reach), np.uint8))
    joined = cv2.morphologyEx(joined, cv2.MORPH_CLOSE, np.ones((3, 1), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    area = 0
    for label in range(1, count):
        x, y, w, h, _ = (int(v) for v in stats[label])
        if not _ROW_HEIGHT[0] * short <= h <= _ROW_HEIGHT[1] * short or w < 1.5 * h:
            continue
        inside = (mask[y : y + h, x : x + w] & (labels[y : y + h, x : x + w] == label)).astype(np.uint8)
        if _steps(inside) >= _PIECES:
            area += w * h
    return area / (height * width)


def _steps(inside: np.ndarray) -> int:
    """How many separate strokes the busiest scan line of a row crosses."""
    starts = np.diff(np.pad(inside, ((0, 0), (1, 0))).astype(np.int8), axis=1) == 1
    return int(starts.sum(axis=1).max(initial=0))


SCORER = Scorer(
    "text",
    {
        "area": ("Share of the picture under rows of strokes, mean over proxies.", "", "[0, 1]"),
        "peak": ("The same, largest over proxies.", "", "[0, 1]"),
    },
    text,
)
