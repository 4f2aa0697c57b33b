"""Full-rate signals: seven numbers per frame, and a tiny thumbnail that the transition finder needs.

All are computed on the small picture of `pipelines.video.frames`, whose area is the same for every
video, so that sharpness does not depend on resolution (variance of the Laplacian does, a known trap).
Luma is scaled from video range to [0, 1].  `change` is PySceneDetect's `content_val` (mean change of hue,
saturation and value), on half the small picture, equal to what its `ContentDetector` gives for it.

Frames come in batches: one OpenCV call over a stack of small pictures costs a fifth of a call for each.  Sums
are sums of integers, so that a frame's numbers do not depend on the batch that it came in.
Cost: about 0.08 ms per frame, 420 bytes of memory per frame.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

THUMB = 16
"""Side of the luma thumbnail; the two chroma ones are half of it."""
THUMB_BYTES = THUMB * THUMB * 3 // 2
_BLACK, _RANGE = 16.0, 219.0
_ONE = 256
"""Weights of a cell's pixels are integers with this sum: products of two and a byte stay exact in float32."""
_FIXED = 1 << 16


@dataclasses.dataclass(slots=True)
class SignalCurves:
    """Signals of a whole video; arrays of one entry per frame."""

    pts: np.ndarray
    luma: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    sharpness: np.ndarray
    difference: np.ndarray
    change: np.ndarray
    """PySceneDetect's `content_val`, 0-255; 0 for the first frame."""
    thumbs: np.ndarray
    """(frame, THUMB**2 * 3 / 2) uint8: luma, then both chroma planes."""


class SignalMeter:
    """Takes small pictures in display order and gathers their numbers."""

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []
        self._pts: list[int] = []
        self._thumbs: list[np.ndarray] = []
        self._luma: np.ndarray | None = None
        self._colour: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._pts)

    def add(self, pts: Sequence[int], luma_u8: np.ndarray, blue_u8: np.ndarray, red_u8: np.ndarray) -> np.ndarray:
        """Measure a batch of frames, all of one size; returns their `change`, (frame,) float32.

        Args:
            luma_u8: (frame, height, width), video range 16-235.
            blue_u8, red_u8: Chroma of half size, 128 is neutral.
        """
        colour = [_hue_saturation_value(*planes) for planes in zip(_halves(luma_u8, blue_u8), blue_u8, red_u8)]
        change = _distances(colour, self._colour)
        rows = np.empty((len(pts), 6))
        rows[:, 0], rows[:, 1] = _mean_and_spread(luma_u8)
        rows[:, 2] = saturations(blue_u8, red_u8)
        rows[:, 3] = laplacian_variances(luma_u8)
        rows[:, 4] = np.array(_distances(luma_u8, self._luma)) / _RANGE
        rows[:, 5] = change
        self._rows.append(rows)
        self._pts += pts
        self._thumbs.append(thumbnails(luma_u8, blue_u8, red_u8))
        self._luma, self._colour = luma_u8[-1].copy(), colour[-1]
        return rows[:, 5].astype(np.float32)

    def curves(self) -> SignalCurves:
        """Everything measured so far."""
        rows = np.concatenate(self._rows).astype(np.float32) if self._rows else np.zeros((0, 6), np.float32)
        return SignalCurves(
            pts=np.array(self._pts, np.int64),
            luma=np.clip(rows[:, 0], 0, 1),
            contrast=np.clip(rows[:, 1], 0, 1),
            saturation=np.clip(rows[:, 2], 0, 1),
            sharpness=rows[:, 3],
            difference=np.clip(rows[:, 4], 0, 1),
            change=rows[:, 5],
            thumbs=np.concatenate(self._thumbs) if self._thumbs else np.zeros((0, THUMB_BYTES), np.uint8),
        )


def _mean_and_spread(luma_u8: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each picture, in [0, 1] of video range."""
    import cv2

    pixels = luma_u8[0].size
    mean = np.array([cv2.sumElems(y)[0] for y in luma_u8]) / pixels
    square = np.array([cv2.norm(y, cv2.NORM_L2SQR) for y in luma_u8]) / pixels
    return (mean - _BLACK) / _RANGE, np.sqrt(np.maximum(square - mean * mean, 0)) / _RANGE


def _distances(pictures: Sequence[np.ndarray] | np.ndarray, before: np.ndarray | None) -> list[float]:
    """Mean absolute difference of each picture to the one before it; 0 for the first of all."""
    import cv2

    found, previous = [], before
    for picture in pictures:
        found.append(0.0 if previous is None else cv2.norm(picture, previous, cv2.NORM_L1) / picture.size)
        previous = picture
    return found


def _halves(luma_u8: np.ndarray, blue_u8: np.ndarray) -> np.ndarray:
    """Luma at the size of the chroma: detectors want no detail."""
    import cv2

    num, (height, width) = len(luma_u8), blue_u8.shape[1:]
    if luma_u8.shape[1:] != (2 * height, 2 * width):  # a caller's own picture; ours have even sides
        return np.stack([cv2.resize(y, (width, height), interpolation=cv2.INTER_AREA) for y in luma_u8])
    stack = luma_u8.reshape(-1, 2 * width)
    return cv2.resize(stack, (width, num * height), interpolation=cv2.INTER_AREA).reshape(num, height, width)


def _hue_saturation_value(luma_u8: np.ndarray, blue_u8: np.ndarray, red_u8: np.ndarray) -> np.ndarray:
    """(height, width, 3) uint8, as PySceneDetect sees a picture."""
    import cv2

    bgr = cv2.cvtColor(cv2.merge([luma_u8, red_u8, blue_u8]), cv2.COLOR_YCrCb2BGR)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV)


def saturations(blue_u8: np.ndarray, red_u8: np.ndarray) -> np.ndarray:
    """Mean distance of each picture's chroma from grey, in [0, 1]."""
    colours = (blue_u8.astype(np.uint16) << 8) | red_u8
    total = _from_grey()[colours].sum(axis=(1, 2))  # of integers: float32 roots differ in their last bit by batch
    return total / blue_u8[0].size / (128 * _FIXED)


@functools.cache
def _from_grey() -> np.ndarray:
    """Distance of every pair of chroma values from grey, as an integer in units of 1 / `_FIXED`."""
    side = np.arange(256) - 128.0
    return np.rint(np.sqrt(side[:, None] ** 2 + side**2) * _FIXED).astype(np.int64).ravel()


def laplacian_variances(luma_u8: np.ndarray) -> np.ndarray:
    """Variance of the 4-neighbour Laplacian of each picture, with luma scaled to [0, 1]; 0 where it is too small."""
    import cv2

    height, width = luma_u8.shape[1:]
    if min(height, width) < 3:
        return np.zeros(len(luma_u8))
    stack = cv2.Laplacian(luma_u8.reshape(-1, width), cv2.CV_16S, ksize=1).reshape(luma_u8.shape)
    inner = np.ascontiguousarray(stack[:, 1:-1, 1:-1])  # the outermost rows touch other pictures of the stack
    mean = np.array([cv2.sumElems(e)[0] for e in inner]) / inner[0].size
    square = np.array([cv2.norm(e, cv2.NORM_L2SQR) for e in inner]) / inner[0].size
    return np.maximum(square - mean * mean, 0) / _RANGE**2


def thumbnails(luma_u8: np.ndarray, blue_u8: np.ndarray, red_u8: np.ndarray) -> np.ndarray:
    """(frame, THUMB_BYTES) uint8: THUMB x THUMB luma and half-size chroma block means of each picture."""
    half = THUMB // 2
    planes = (block_means(luma_u8, THUMB), block_means(blue_u8, half), block_means(red_u8, half))
    return np.concatenate([p.reshape(len(p), -1) for p in planes], axis=1)


def block_means(pictures_u8: np.ndarray, cells: int) -> np.ndarray:
    """Mean of each cell of a `cells` x `cells` grid over each picture, uint8; (frame, cells, cells)."""
    num, height, width = pictures_u8.shape
    across, down = _cell_weights(width, cells), _cell_weights(height, cells)
    rows = (pictures_u8.reshape(-1, width).astype(np.float32) @ across.T).reshape(num, height, cells)
    total = np.matmul(down, rows)  # sums of integers below 2**24: exact in any order
    return ((total + _ONE * _ONE // 2) // (_ONE * _ONE)).astype(np.uint8)


@functools.cache
def _cell_weights(length: int, cells: int) -> np.ndarray:
    """(cells, length) float32 of integers: how much of `_ONE` each pixel is of a cell, by overlap."""
    edges = np.arange(cells + 1) * length / cells
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(length)[None]
    overlap = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None) * _ONE * cells / length
    ends = np.rint(np.cumsum(overlap, axis=1))  # rounding the running sum keeps the whole exactly _ONE
    return np.diff(ends, axis=1, prepend=0).astype(np.float32)
