"""Overlay: a mark that stands still in a corner: a logo, a watermark, a station's bug.

Fine strokes that are in every proxy of the clip are joined to blobs; a blob counts if it lies wholly in one
of the four corners, is of a logo's size and does not touch the frame's edge (a wall's joint does).  The
score is its contrast times the better of two witnesses that it is a mark and no part of the scene: its strokes
fill it (leaves, tiles and windows leave most of their box empty), or it stands still while what surrounds
it moves.  So a thin mark over a scene that never moves is missed, where no picture can tell; on a card or a
test chart the score is high, and rightly so.  Cost: about 1 ms per proxy.
"""

import numpy as np

from pipelines.scorers.base import Scorer, View
from pipelines.scorers.text import lines, strokes

_CORNER = 0.34
"""Side of a corner, as a share of each side of the picture."""
_SIZE = (0.08, 0.4)
"""Side of a mark, in short sides of the picture."""
_STROKES = (0.1, 0.2, 0.3, 0.4)
"""Contrasts at which strokes are joined; a mark that touches a weaker line comes free at a higher one."""
_LEAST_PIXELS = 0.1
"""Share of its box that a mark's strokes fill."""
_MOVED = 0.06
"""Range of a pixel's luma over the clip from which on it moves, [0, 1]."""
_AROUND = 0.3
"""Width of the surroundings of a mark, in its longer sides."""
_MOST_BESIDE = 0.1
"""Share of strokes beside a mark, as high as it and 0.3 of its longer side wide."""
_MOST_WRITING = 0.3
"""Share of a mark's box that lines of writing may cover: a word of a subtitle is no logo."""
_LEAST_AROUND, _LEAST_MOVING = 0.3, 0.5
"""Shares of the surroundings and of the whole picture that must move before standing still says anything: a house
stands still among trees in the wind."""


def overlay(view: View) -> dict[str, float | None]:
    """Strength of the strongest still mark in a corner; 0 if there is none."""
    if not len(view.grey):
        return {"corner": None}
    bright, dark = zip(*(stroke_contrast(f) for f in view.grey))
    still_bright, still_dark = np.percentile(bright, 10, axis=0), np.percentile(dark, 10, axis=0)
    moves = view.grey.max(axis=0) - view.grey.min(axis=0) > _MOVED
    return {"corner": corner_mark(still_bright, still_dark, moves, _writing(view))}


def stroke_contrast(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much each pixel stands out as a thin bright, and as a thin dark, stroke."""
    import cv2

    size = max(3, round(min(grey.shape) * 0.08) | 1)
    kernel = np.ones((size, size), np.uint8)
    return cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, kernel), cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, kernel)


def _writing(view: View) -> np.ndarray:
    """Pixels in boxes of lines of writing, which is another score's business, (height, width) bool."""
    here = np.zeros(view.grey.shape[1:], bool)
    first, last = len(view.grey) // 3, 2 * len(view.grey) // 3
    for x, y, w, h in lines(strokes(view.grey[first]) & strokes(view.grey[last]), view.grey[first]):
        here[y : y + h, x : x + w] = True
    return here


def corner_mark(bright: np.ndarray, dark: np.ndarray, moves: np.ndarray, writing: np.ndarray) -> float:
    """Strength of the strongest blob of still strokes inside a corner, [0, 2].

    Args:
        bright, dark: (height, width) stroke contrast that holds over the whole clip, [0, 1].
        moves: (height, width) bool, pixels that change over the clip.
        writing: (height, width) bool, pixels in lines of writing.
    """
    found = 0.0
    for level in _STROKES:
        # apart as well as together: the gap between a bright mark and the frame's edge is a dark stroke
        for mask in (bright > level, dark > level, (bright > level) | (dark > level)):
            found = max(found, _marks_in(mask.astype(np.uint8), bright, dark, moves, writing))
    return found


def _marks_in(mask: np.ndarray, bright: np.ndarray, dark: np.ndarray, moves: np.ndarray, writing: np.ndarray) -> float:
    """The same among one mask's blobs."""
    import cv2

    height, width = bright.shape
    short = min(height, width)
    reach = max(3, round(0.03 * short) | 1)
    joined = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((reach, reach), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    best = 0.0
    for label in range(1, count):
        x, y, w, h, _ = (int(v) for v in stats[label])
        fits = _SIZE[0] * short <= min(w, h) and max(w, h) <= _SIZE[1] * short
        if not fits or not _in_corner(x, y, w, h, width, height):
            continue
        box = (slice(y, y + h), slice(x, x + w))
        inside = labels[box] == label
        fill = float((inside & (mask[box] > 0)).mean())
        if fill < _LEAST_PIXELS:
            continue
        if _goes_on(mask, x, y, w, h) or writing[box].mean() > _MOST_WRITING:
            continue
        contrast = np.percentile(bright[box][inside], 90) + np.percentile(dark[box][inside], 90)
        best = max(best, float(contrast) * max(fill, _stillness(moves, inside, x, y)))
    return best


def _goes_on(mask: np.ndarray, x: int, y: int, w: int, h: int) -> bool:
    """Strokes go on to the left or to the right of a blob: it is a piece of a line of writing, or of a fence."""
    reach = max(3, round(_AROUND * max(w, h)))
    left, right = mask[y : y + h, max(0, x - reach) : x], mask[y : y + h, x + w : x + w + reach]
    return max(float(side.mean()) if side.size else 0.0 for side in (left, right)) > _MOST_BESIDE


def _stillness(moves: np.ndarray, inside: np.ndarray, x: int, y: int) -> float:
    """How much less a blob moves than what surrounds it, [0, 1]; 0 where nothing does."""
    h, w = inside.shape
    reach = max(3, round(_AROUND * max(h, w)))
    top, left = max(0, y - reach), max(0, x - reach)
    window = moves[top : y + h + reach, left : x + w + reach]
    around = np.ones(window.shape, bool)
    around[y - top : y - top + h, x - left : x - left + w] = False
    moving = float(window[around].mean())
    if moving < _LEAST_AROUND or float(moves.mean()) < _LEAST_MOVING:
        return 0.0
    return max(0.0, 1.0 - float(moves[y : y + h, x : x + w][inside].mean()) / moving)


def _in_corner(x: int, y: int, w: int, h: int, width: int, height: int) -> bool:
    """Wholly in a corner, and clear of the frame's edge."""
    beside = x + w <= _CORNER * width or x >= (1 - _CORNER) * width
    above = y + h <= _CORNER * height or y >= (1 - _CORNER) * height
    clear = x > 1 and y > 1 and x + w < width - 1 and y + h < height - 1
    return beside and above and clear


SCORER = Scorer(
    "overlay",
    {"corner": ("Contrast of a still mark in a corner, times how surely it is a mark.", "", "[0, 2]")},
    overlay,
    version=2,
)
