"""What a scorer is, and what it may look at.

A scorer is a pure function from one clip to a few numbers.  It sees the clip's slice of the full-rate
signals and its proxy frames; it never decodes.  A new scorer is one file with a `SCORER` and one line in
`pipelines/scorers/__init__.py`; its table, its Dagster asset and its contract tests follow from the list.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np

from pipelines.video.frames import nearest_indices, read_jpeg
from schemas.clips import Clip
from schemas.scores import score_table
from schemas.table import Table

MAX_PROXIES = 16
_LUMA = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class View:
    """One clip as a scorer sees it; signals are arrays with one entry per frame of the clip."""

    clip: Clip
    picture_size: tuple[int, int]
    """Width and height of the whole picture as shown, before the crop."""
    luma: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    sharpness: np.ndarray
    difference: np.ndarray
    """Change to the frame before; the clip's first frame has none and holds 0."""
    jpegs: tuple[bytes, ...]
    """Proxy frames inside the clip, in time order."""
    times_s: tuple[float, ...]
    """When each proxy is shown, s from the clip's start."""
    blockiness: tuple[float, ...]
    """Of the full picture of each proxy, as the scan measured it."""

    def proxy(self, index: int) -> np.ndarray:
        """One proxy, cropped as the clip is, (height, width, 3) uint8 RGB; decoded once, however many ask."""
        if index not in self._decoded:
            self._decoded[index] = cropped(read_jpeg(self.jpegs[index]), self.clip.crop, self.picture_size)
        return self._decoded[index]

    @cached_property
    def frames(self) -> np.ndarray:
        """Up to MAX_PROXIES proxies, evenly over the clip: (time, height, width, 3) uint8 RGB."""
        chosen = nearest_indices(len(self.jpegs), MAX_PROXIES)
        if not chosen:
            return np.zeros((0, 1, 1, 3), np.uint8)
        return np.stack([self.proxy(i) for i in chosen])

    @cached_property
    def grey(self) -> np.ndarray:
        """Luma of `frames`, (time, height, width) float32 in [0, 1]."""
        return self.frames.astype(np.float32) @ (np.array(_LUMA, np.float32) / 255)

    @cached_property
    def _decoded(self) -> dict[int, np.ndarray]:
        return {}


def cropped(frame: np.ndarray, crop: list[int] | None, picture_size: tuple[int, int]) -> np.ndarray:
    """The part of a proxy that shows what the crop leaves of the picture.

    Args:
        crop: x, y, width, height in a picture of `picture_size` (width, height); None for the whole.
    """
    if crop is None:
        return frame
    x, y, width, height = crop
    sx, sy = frame.shape[1] / picture_size[0], frame.shape[0] / picture_size[1]
    left, top = int(np.ceil(x * sx)), int(np.ceil(y * sy))
    right, bottom = int((x + width) * sx), int((y + height) * sy)
    return frame[top : max(top + 1, bottom), left : max(left + 1, right)]


@dataclasses.dataclass(frozen=True, slots=True)
class Scorer:
    """A named score."""

    name: str
    columns: Mapping[str, tuple[str, str, str]]
    """Column name to (meaning, unit, range)."""
    function: Callable[[View], Mapping[str, float | None]]
    version: int = 1

    @property
    def table(self) -> Table:
        return score_table(self.name, self.columns)
