"""Full-rate signals: six numbers per frame, and a tiny thumbnail that the transition finder needs.

All are computed on the small picture of `pipelines.video.frames`, whose area is the same for every
video, so that sharpness does not depend on resolution (variance of the Laplacian does, a known trap).
Luma is scaled from video range to [0, 1].  Cost: about 0.1 ms per frame, constant memory per frame.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

THUMB = 16
"""Side of the luma thumbnail; the two chroma ones are half of it."""
_BLACK, _RANGE = 16.0, 219.0


@dataclasses.dataclass(slots=True)
class SignalCurves:
    """Signals of a whole video; arrays of one entry per frame."""

    pts: np.ndarray
    luma: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    sharpness: np.ndarray
    difference: np.ndarray
    thumbs: np.ndarray
    """(frame, THUMB**2 * 3 / 2) uint8: luma, then both chroma planes."""


class SignalMeter:
    """Takes small pictures in display order and gathers their numbers."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, float, float, float, float]] = []
        self._pts: list[int] = []
        self._thumbs: list[np.ndarray] = []
        self._before: np.ndarray | None = None

    def add(self, pts: int, luma_u8: np.ndarray, blue_u8: np.ndarray, red_u8: np.ndarray) -> None:
        """Measure one frame.

        Args:
            luma_u8: (height, width), video range 16-235.
            blue_u8, red_u8: Chroma of half size, 128 is neutral.
        """
        import cv2  # comes with scenedetect; ten times faster than numpy on pictures this small

        mean, spread = (float(v[0, 0]) for v in cv2.meanStdDev(luma_u8))
        change = cv2.mean(cv2.absdiff(luma_u8, self._before))[0] / _RANGE if self._before is not None else 0.0
        self._rows.append(
            (
                (mean - _BLACK) / _RANGE,
                spread / _RANGE,
                saturation(blue_u8, red_u8),
                laplacian_variance(luma_u8),
                float(change),
            )
        )
        self._pts.append(pts)
        self._thumbs.append(thumbnail(luma_u8, blue_u8, red_u8))
        self._before = luma_u8

    def curves(self) -> SignalCurves:
        """Everything measured so far."""
        rows = np.array(self._rows, np.float32).reshape(-1, 5)
        size = THUMB * THUMB * 3 // 2
        return SignalCurves(
            pts=np.array(self._pts, np.int64),
            luma=np.clip(rows[:, 0], 0, 1),
            contrast=np.clip(rows[:, 1], 0, 1),
            saturation=np.clip(rows[:, 2], 0, 1),
            sharpness=rows[:, 3],
            difference=np.clip(rows[:, 4], 0, 1),
            thumbs=np.stack(self._thumbs) if self._thumbs else np.zeros((0, size), np.uint8),
        )


def saturation(blue_u8: np.ndarray, red_u8: np.ndarray) -> float:
    """Mean distance of the chroma from grey, in [0, 1]."""
    blue, red = blue_u8.astype(np.float32) - 128, red_u8.astype(np.float32) - 128
    return float(np.sqrt(blue * blue + red * red).mean() / 128)


def laplacian_variance(luma_u8: np.ndarray) -> float:
    """Variance of the 4-neighbour Laplacian, with luma scaled to [0, 1]; 0 for a picture too small to have any."""
    import cv2

    if min(luma_u8.shape) < 3:
        return 0.0
    edges = cv2.Laplacian(luma_u8, cv2.CV_16S, ksize=1)[1:-1, 1:-1]
    return float(cv2.meanStdDev(edges)[1][0, 0] / _RANGE) ** 2


def thumbnail(luma_u8: np.ndarray, blue_u8: np.ndarray, red_u8: np.ndarray) -> np.ndarray:
    """THUMB x THUMB luma and half-size chroma block means, flat uint8."""
    half = THUMB // 2
    parts: Sequence[np.ndarray] = (
        block_means(luma_u8, THUMB, THUMB),
        block_means(blue_u8, half, half),
        block_means(red_u8, half, half),
    )
    return np.concatenate([p.ravel() for p in parts])


def block_means(picture_u8: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Mean of each cell of a `rows` x `columns` grid, uint8; a picture smaller than the grid repeats pixels."""
    import cv2

    return cv2.resize(picture_u8, (columns, rows), interpolation=cv2.INTER_AREA)
