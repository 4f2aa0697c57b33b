"""Camera: how the camera moves, apart from what moves in front of it.

Between neighbouring proxies (a quarter of a second) the best corner of each cell of an even grid is followed
by Lucas-Kanade, and one similarity (shift, scale, turn) is fitted to all of them by RANSAC: what most of
the picture does is the camera, what is left over is things that move.  The grid keeps one textured subject
from outvoting the scene.  Shake is how much the camera's speed changes from one pair to the next, so a
steady pan has none.  A proxy comes four times a second: faster tremor shows in `shake`, but not at its frequency.

Lengths are in short sides of the picture; pan is positive to the right, tilt downwards, roll clockwise, zoom
inwards.  A picture without corners (fog, black) is not measured and counts as still; `followed` says how much was.
Ref: affine camera motion fits, e.g. Bouthemy et al. 1999; OpenCV `calcOpticalFlowPyrLK` and
`estimateAffinePartial2D`.  Cost: about 1 ms per pair of proxies, at most 40 pairs per clip.
"""

import math

import numpy as np

from pipelines.scorers.base import Scorer, View

_AREA = 128 * 72
"""Pixels of the picture that corners are followed in; a larger one costs more and finds no more."""
_CELL = 10
"""Side of a grid cell, pixel."""
_LEAST_CORNER = 2e-4
"""Smallest eigenvalue of a corner that is followed."""
_LEAST_POINTS = 8
_LARGEST_ERROR = 12.0
"""Largest mean difference between a corner's surroundings before and after, 0-255."""
_REACH = 0.8
"""Distance from the fit, in pixels, up to which a corner goes with the camera."""
_LONGEST_S = 1.1
"""Proxies farther apart than this are not compared, s."""
_MAX_PAIRS = 40

_Motion = tuple[float, float, float, float, float]


def camera(view: View) -> dict[str, float | None]:
    """Mean motion of the camera, its unrest, and what moves besides; zeros for a clip of one proxy."""
    if not view.jpegs:
        return dict.fromkeys(SCORER.columns)
    pairs = choose_pairs(view.times_s)
    greys = {i: _small(view.proxy(i)) for i in sorted({i for p in pairs for i in p})}
    found = {}
    for before, after in pairs:
        seconds = view.times_s[after] - view.times_s[before]
        motion = between(greys[before], greys[after])
        if motion is not None:
            found[before, after] = np.array(motion) / seconds
    if not found:
        return {**dict.fromkeys(SCORER.columns, 0.0)}
    pan, tilt, zoom, roll, rest = np.mean(list(found.values()), axis=0)
    turns = [found[b, c][:2] - found[a, b][:2] for a, b in found for b2, c in found if b2 == b]
    return {
        "pan": float(pan),
        "tilt": float(tilt),
        "zoom": float(zoom),
        "roll": float(math.degrees(roll)),
        "speed": float(np.mean([math.hypot(v[0], v[1]) for v in found.values()])),
        "shake": float(np.sqrt(np.mean(np.square(turns).sum(axis=1)))) if turns else 0.0,
        "object_motion": float(rest),
        "followed": len(found) / len(pairs),
    }


def choose_pairs(times_s: tuple[float, ...]) -> list[tuple[int, int]]:
    """Neighbouring proxies to compare: all of a short clip, evenly spread runs of two pairs of a long one."""
    near = [i for i in range(len(times_s) - 1) if 0.02 < times_s[i + 1] - times_s[i] <= _LONGEST_S]
    if len(near) > _MAX_PAIRS:
        starts = {round(k * (len(near) - 2) / (_MAX_PAIRS // 2 - 1)) for k in range(_MAX_PAIRS // 2)}
        near = [near[k] for k in sorted(starts | {s + 1 for s in starts})]
    return [(i, i + 1) for i in near]


def between(before: np.ndarray, after: np.ndarray) -> _Motion | None:
    """(pan, tilt, log of zoom, roll in radians, mean residual) from one picture to the next; None without corners.

    Pan and tilt are the camera's, so opposite to the picture's shift; lengths in short sides.
    """
    import cv2

    points = _corners(before)
    if len(points) < _LEAST_POINTS:
        return None
    moved, status, error = cv2.calcOpticalFlowPyrLK(  # type: ignore[call-overload]
        before, after, points, None, winSize=(9, 9), maxLevel=3
    )
    good = (status.ravel() == 1) & (error.ravel() < _LARGEST_ERROR)
    if good.sum() < _LEAST_POINTS:
        return None
    height, width = before.shape
    middle = np.array([(width - 1) / 2, (height - 1) / 2], np.float32)
    source, target = points[good].reshape(-1, 2) - middle, moved[good].reshape(-1, 2) - middle
    fit, inside = cv2.estimateAffinePartial2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=_REACH, maxIters=300, confidence=0.99, refineIters=5
    )
    if fit is None or inside.sum() < _LEAST_POINTS // 2:
        return None
    short = min(before.shape)
    rest = np.hypot(*(target - (source @ fit[:, :2].T + fit[:, 2])).T)
    rest = np.where(rest > _REACH, rest, 0.0)  # what goes with the camera is off by the fit's own error
    scale = math.log(max(math.hypot(fit[0, 0], fit[1, 0]), 1e-6))
    turn = math.atan2(fit[1, 0], fit[0, 0])
    return -fit[0, 2] / short, -fit[1, 2] / short, scale, -turn, float(rest.mean()) / short


def _corners(grey: np.ndarray) -> np.ndarray:
    """The best corner of each cell, (point, 1, 2) float32; none where the cell is flat."""
    import cv2

    strength = cv2.cornerMinEigenVal(grey, 3)
    rows, columns = grey.shape[0] // _CELL, grey.shape[1] // _CELL
    cells = strength[: rows * _CELL, : columns * _CELL].reshape(rows, _CELL, columns, _CELL)
    flat = cells.transpose(0, 2, 1, 3).reshape(rows * columns, -1) if rows * columns else np.zeros((0, 1))
    best = flat.argmax(axis=1) if len(flat) else np.zeros(0, int)
    kept = np.flatnonzero(flat[np.arange(len(flat)), best] >= _LEAST_CORNER)
    y, x = kept // max(columns, 1) * _CELL + best[kept] // _CELL, kept % max(columns, 1) * _CELL + best[kept] % _CELL
    return np.stack([x, y], axis=1).astype(np.float32)[:, None]


def _small(frame: np.ndarray) -> np.ndarray:
    import cv2

    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    scale = math.sqrt(_AREA / grey.size)
    if scale >= 1:
        return np.asarray(grey)
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA))


SCORER = Scorer(
    "camera",
    {
        "pan": ("Mean turn of the camera to the right.", "short side/s", "(-inf, inf)"),
        "tilt": ("Mean turn of the camera downwards.", "short side/s", "(-inf, inf)"),
        "zoom": ("Mean growth of the picture, natural logarithm per second; positive inwards.", "1/s", "(-inf, inf)"),
        "roll": ("Mean turn of the camera about its axis, clockwise.", "degree/s", "(-inf, inf)"),
        "speed": ("Mean length of pan and tilt together, whatever their direction.", "short side/s", "[0, inf)"),
        "shake": ("Root mean square change of that speed from one pair to the next.", "short side/s", "[0, inf)"),
        "object_motion": ("Mean motion of corners that do not go with the camera.", "short side/s", "[0, inf)"),
        "followed": ("Share of pairs of proxies with corners enough for a fit.", "", "[0, 1]"),
    },
    camera,
)
