"""Text: how much of the picture burnt-in writing covers.

Writing is thin, has high contrast to what is right beside it, stands in rows of several pieces of about
one height, is of one brightness, and stays for a while.  Thin bright strokes with a dark side are found by
top-hat and black-hat filters, kept where two neighbouring proxies agree, joined along rows and split into
lines.  A line counts if a scan line crosses at least four strokes, and the strokes fill it, are not crumbs of it,
and are of one brightness: grass, gravel, leaves and railings have strokes as well, and fail one of the three.
No letters are read: a detector of rows of strokes, not OCR; signs in the scene count as well.
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
_LEAST_WIDTH = 0.22
"""Width of a line, in short sides; a logo with letters is narrower."""
_LEAST_PX = 4
"""Height of the smallest letters that can be told from noise, pixel."""
_FILL = 0.26
"""Least share of a row that its strokes fill."""
_PIECE_HEIGHT = 0.3
"""Least mean height of the pieces of a row, in heights of the row."""
_UNEVEN = 0.2
"""Largest deviation of the brightness of the strokes' brighter half, in contrasts to what lies between them."""
_GAP = 0.2
"""Between two lines the strokes thin out to this share of the densest scan line."""


def text(view: View) -> dict[str, float | None]:
    """Mean and largest share of the picture under rows of strokes, over pairs of neighbouring proxies."""
    if not len(view.grey):
        return {"area": None, "peak": None}
    masks = [strokes(f) for f in view.grey]
    pairs = list(itertools.pairwise(masks)) or [(masks[0], masks[0])]
    grey = list(view.grey)
    areas = [sum(w * h for _, _, w, h in lines(a & b, g)) / g.size for (a, b), g in zip(pairs, grey)]
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


def lines(mask: np.ndarray, grey: np.ndarray) -> list[tuple[int, int, int, int]]:
    """x, y, width and height of each line of writing.

    Args:
        mask: Strokes.
        grey: The picture that they were found in, [0, 1].
    """
    import cv2

    reach = max(3, round(0.07 * min(mask.shape)))
    joined = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((1, reach), np.uint8))
    joined = cv2.morphologyEx(joined, cv2.MORPH_CLOSE, np.ones((3, 1), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    found = []
    for label in range(1, count):
        x, y, w, h, _ = (int(v) for v in stats[label])
        if w < 4 or h < 3:
            continue
        box = (slice(y, y + h), slice(x, x + w))
        inside = mask[box] & (labels[box] == label)
        for rows in _rows(inside):
            span = _line(inside[rows], grey[box][rows], min(mask.shape))
            if span is not None:
                found.append((x + span[0], y + rows.start, span[1] - span[0], rows.stop - rows.start))
    return found


def _rows(inside: np.ndarray) -> list[slice]:
    """Runs of scan lines with strokes, apart from thin ones between."""
    dense = inside.sum(axis=1)
    edges = np.diff(np.pad((dense > _GAP * max(1, dense.max())).astype(np.int8), 1))
    return [slice(int(a), int(b)) for a, b in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1))]


def _line(inside: np.ndarray, grey: np.ndarray, short: int) -> tuple[int, int] | None:
    """First and last column (exclusive) of a line, None if it is not writing."""
    import cv2

    columns = np.flatnonzero(inside.any(axis=0))
    if not len(columns):
        return None
    inside, grey = inside[:, columns[0] : columns[-1] + 1], grey[:, columns[0] : columns[-1] + 1]
    height, width = inside.shape
    if not max(_LEAST_PX, _ROW_HEIGHT[0] * short) <= height <= _ROW_HEIGHT[1] * short:
        return None
    if width < max(1.5 * height, _LEAST_WIDTH * short):
        return None
    if inside.mean() < _FILL or _steps(inside.astype(np.uint8)) < _PIECES:
        return None
    count, _, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8), connectivity=8)
    if stats[1:count, cv2.CC_STAT_HEIGHT].mean() < _PIECE_HEIGHT * height:
        return None
    bright = grey[inside]
    core, between = bright[bright >= np.median(bright)], float(np.median(grey[~inside])) if not inside.all() else 0.0
    if core.std() > _UNEVEN * max(float(core.mean()) - between, 0.01):
        return None
    return int(columns[0]), int(columns[-1]) + 1


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
    version=2,
)
