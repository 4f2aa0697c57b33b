"""The probe: what a short video of one subject shows, by arithmetic alone.  It judges generated videos.

Background: nearest palette colour of the median picture.  Foreground: pixels far from that colour, relative to
the farthest ones, so that washed-out pictures work as sharp ones do; of those the largest connected piece.
Colour: nearest palette colour of its core.  Shape: overlap with each shape drawn at its place and area.
Camera: each of the cameras predicts how the background of one frame lies in the next; the best prediction
wins.  Motion: the piece's way in the world, once the camera's own is taken off.  On real renders of 64 px it
is right (`tests/pipelines/synthetic/test_probe.py`); what it cannot see it leaves out.  Cost: about 20 ms per
video of 9 frames of 64 x 64.
"""

import numpy as np
import numpy.typing as npt

from pipelines.synthetic.render import Frame, camera_at, shape_corners
from pipelines.synthetic.world import BACKGROUNDS, CAMERAS, COLORS, MOTIONS, SHAPES, TRAVEL

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "color": tuple(COLORS),
    "shape": SHAPES,
    "background": tuple(BACKGROUNDS),
    "motion": tuple(MOTIONS),
    "camera": CAMERAS,
}
CHANCE: dict[str, float] = {name: 1 / len(words) for name, words in ATTRIBUTES.items()}
"""What guessing would score."""
_MIN_AREA = 0.012  # of the picture; smaller pieces are texture or noise
_MIN_CONTRAST = 45.0  # distance in RGB at which something stands out of a background
_STATIC_BONUS = 0.01  # of correlation; without evidence a camera counts as static
Mask = npt.NDArray[np.bool_]


def probe(frames: Frame) -> dict[str, str]:
    """Name colour, shape, background, motion and camera of a video's main subject.

    Args:
        frames: (time, height, width, 3) uint8 RGB.

    Returns:
        Attribute to value.  What cannot be told is left out: all but background and camera where nothing
        stands out, motion of a single frame.
    """
    background = _background(frames)
    masks = [_piece(frame, background) for frame in frames]
    found = {"background": background}
    if len(frames) > 1:
        found["camera"] = _camera(frames, masks)
    seen = [i for i, mask in enumerate(masks) if mask is not None]
    if not seen:
        return found
    pieces = [(frames[i], mask) for i, mask in enumerate(masks) if mask is not None]
    found["color"] = _nearest(np.median([_core_color(f, m) for f, m in pieces], axis=0), COLORS)
    found["shape"] = _shape([m for _, m in pieces])
    if len(seen) > 1:
        found["motion"] = _motion(masks, found["camera"])
    return found


def pieces(frames: Frame) -> list[Mask | None]:
    """Where the main subject is in each frame, or None where nothing stands out."""
    background = _background(frames)
    return [_piece(frame, background) for frame in frames]


def _nearest(color: npt.NDArray[np.float64], palette: dict[str, tuple[int, int, int]]) -> str:
    return min(palette, key=lambda name: float(np.linalg.norm(color - palette[name])))


def _background(frames: Frame) -> str:
    """Palette colour that is nearest to most pixels, pixel by pixel: a large subject does not shift it."""
    pixels = frames.reshape(-1, 3).astype(np.float64)
    names = [*BACKGROUNDS, *COLORS]
    palette = np.array([*BACKGROUNDS.values(), *COLORS.values()], dtype=np.float64)
    nearest = np.argmin(((pixels[:, None] - palette) ** 2).sum(-1), axis=1)
    counts = np.bincount(nearest, minlength=len(names))[: len(BACKGROUNDS)]
    if not counts.sum():
        return _nearest(np.median(pixels, axis=0), BACKGROUNDS)
    return names[int(np.argmax(counts))]


def _piece(frame: Frame, background: str) -> Mask | None:
    """The largest connected piece that stands out and is no dark spot of the background's own, or None."""
    import cv2

    base = np.median(frame.reshape(-1, 3), axis=0)
    if np.linalg.norm(base - BACKGROUNDS[background]) > 60:  # the subject covers most of the picture
        base = np.asarray(BACKGROUNDS[background], dtype=np.float64)
    distance = np.sqrt(((frame.astype(np.float64) - base) ** 2).sum(-1))
    distance = cv2.GaussianBlur(distance, (3, 3), 0)
    level = max(_MIN_CONTRAST, 0.5 * float(np.quantile(distance, 0.98)))
    count, labels, stats, _ = cv2.connectedComponentsWithStats((distance > level).astype(np.uint8), connectivity=4)
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    if stats[largest, cv2.CC_STAT_AREA] < _MIN_AREA * labels.size:
        return None
    mask = np.asarray(labels == largest)
    color = _core_color(frame, mask)
    nearest = COLORS[_nearest(color, COLORS)]
    is_texture = np.linalg.norm(color - nearest) > np.linalg.norm(color - BACKGROUNDS[background])
    return None if is_texture else mask


def _core_color(frame: Frame, mask: Mask) -> npt.NDArray[np.float64]:
    """Median colour of a piece without its rim, which mixes with the background."""
    import cv2

    core = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    return np.asarray(np.median(frame[core if core.any() else mask], axis=0), dtype=np.float64)


def _shape(masks: list[Mask]) -> str:
    """Shape that overlaps best, over the frames in which the piece is whole (all, if it never is)."""
    whole = [m for m in masks if is_whole(m)]
    scores = np.array([[overlap(m, shape) for shape in SHAPES] for m in whole or masks])
    return SHAPES[int(np.argmax(scores.mean(axis=0)))]


def is_whole(mask: Mask) -> bool:
    """Whether a piece touches no edge of the picture."""
    return not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def overlap(mask: Mask, shape: str) -> float:
    """Intersection over union of a piece and a shape of its area and centre."""
    import cv2

    unit = shape_corners(shape, 1.0)
    area = float(mask.sum())
    corners = unit * np.sqrt(area / cv2.contourArea(unit.astype(np.float32)))
    drawn = np.zeros(mask.shape, np.uint8)
    points = np.round((corners - _centroid_of(shape, corners) + _centroid(mask)) * 16).astype(np.int32)
    cv2.fillPoly(drawn, [points], (255,), cv2.LINE_AA, 4)
    both = drawn > 127
    return float((mask & both).sum() / max((mask | both).sum(), 1))


def _centroid(mask: Mask) -> npt.NDArray[np.float64]:
    ys, xs = np.nonzero(mask)
    return np.array([xs.mean(), ys.mean()])


def _centroid_of(shape: str, corners: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    import cv2

    moments = cv2.moments(corners.astype(np.float32))
    return np.array([moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]])


def _motion(masks: list[Mask | None], camera: str) -> str:
    """Way of the piece's centre in the world, from a line through its places."""
    times, places = [], []
    for i, mask in enumerate(masks):
        if mask is None:
            continue
        u = i / (len(masks) - 1)
        cx, cy, zoom = camera_at(camera, u)
        height, width = mask.shape
        screen = (_centroid(mask) - ((width - 1) / 2, (height - 1) / 2)) / (zoom * min(width, height))
        times.append(u)
        places.append(screen + np.array([cx, cy]))
    way = np.polyfit(times, np.array(places), 1)[0]
    axis = int(np.argmax(np.abs(way)))
    if abs(way[axis]) < 0.4 * TRAVEL:
        return "still"
    step = [0, 0]
    step[axis] = 1 if way[axis] > 0 else -1
    return next(name for name, direction in MOTIONS.items() if direction == tuple(step))


def _camera(frames: Frame, masks: list[Mask | None]) -> str:
    """Camera that best predicts how the background moves between frames."""
    import cv2

    grays = [cv2.GaussianBlur(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 0.8) for f in frames]
    clear = [_clear(mask, gray.shape) for mask, gray in zip(masks, grays)]
    scores = {}
    for camera in CAMERAS:
        fits = [
            _fit(grays[i], grays[j], clear[i], clear[j], camera, i / (len(frames) - 1), j / (len(frames) - 1))
            for i, j in _steps(len(frames))
        ]
        scores[camera] = float(np.mean(fits)) + (_STATIC_BONUS if camera == "static" else 0.0)
    return max(scores, key=lambda name: scores[name])


def _steps(count: int) -> list[tuple[int, int]]:
    """Pairs of frames about a quarter of the video apart: far enough to move, near enough to overlap."""
    apart = max(1, (count - 1) // 4)
    return [(i, i + apart) for i in range(count - apart)]


def _clear(mask: Mask | None, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """1 where background is seen, 0 on and around the subject."""
    import cv2

    if mask is None:
        return np.ones(shape, np.float32)
    return 1 - cv2.dilate(mask.astype(np.float32), np.ones((5, 5), np.uint8))  # type: ignore[return-value]


def _fit(
    first: npt.NDArray[np.float32],
    second: npt.NDArray[np.float32],
    clear_first: npt.NDArray[np.float32],
    clear_second: npt.NDArray[np.float32],
    camera: str,
    u: float,
    v: float,
) -> float:
    """Correlation of the second frame with the first as the camera would move it, where both show background."""
    import cv2

    height, width = first.shape
    short = min(width, height)
    (x0, y0, z0), (x1, y1, z1) = camera_at(camera, u), camera_at(camera, v)
    scale = z0 / z1  # pixels of the first per pixel of the second
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = middle - scale * middle + np.array([x1 - x0, y1 - y0]) * z0 * short
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(first, matrix, (width, height), flags=flags)
    seen = cv2.warpAffine(clear_first, matrix, (width, height), flags=flags) * clear_second > 0.99
    if seen.sum() < 30:
        return 0.0
    a, b = moved[seen] - moved[seen].mean(), second[seen] - second[seen].mean()
    return float((a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + 1e-6))
