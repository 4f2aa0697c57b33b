"""Files that a user gives: pictures and videos brought to the frame rate and the canvas that a model works at.

A video is sampled at the model's frame rate (the frame shown at each moment) and scaled, while it is read, to cover
the canvas; what then is over is trimmed at opposite edges, which is less than a cell where the shapes agree.
Cost: one decode; memory is that of the frames at the canvas's size.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipelines.video.read import stream_frames
from schemas.errors import UsageError

_MOST_BYTES = 2 << 30


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A file's pictures as the model will see them."""

    pictures: np.ndarray
    """(time, height, width, 3) uint8."""
    own_width: int
    own_height: int
    """As the file has it."""
    sha256: str

    @property
    def scale(self) -> float:
        """Canvas over own size."""
        return max(self.pictures.shape[1] / self.own_height, self.pictures.shape[2] / self.own_width)


Size = Callable[[int, int], tuple[int, int]]
"""From a file's own width and height to those wanted."""


def open_source(path: str, fps: float, size: Size, most_s: float | None = None) -> Source:
    """Read a picture (one frame) or a video.

    Args:
        most_s: Stop after so many seconds.

    Raises:
        UsageError: If it does not read, or is longer than memory allows.
    """
    try:
        frames = _still(path) if _is_picture(path) else _at(path, fps, most_s)
        pictures: list[np.ndarray] = []
        own = wanted = (0, 0)
        for frame in frames:
            if not pictures:
                own = (frame.shape[1], frame.shape[0])
                wanted = size(*own)
            pictures.append(cover(frame, *wanted))
            if len(pictures) * pictures[0].nbytes > _MOST_BYTES:
                raise UsageError(f"{path} is over {_MOST_BYTES >> 30} GiB at {wanted[0]}x{wanted[1]}: cut it first")
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except (OSError, ValueError, UnidentifiedImageError) as e:
        raise UsageError(f"{path} does not read as a picture or a video: {e}") from e
    if not pictures:
        raise UsageError(f"{path} holds no pictures")
    return Source(np.stack(pictures), *own, digest)


def _is_picture(path: str) -> bool:
    return Path(path).suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def _still(path: str) -> Iterator[np.ndarray]:
    with Image.open(path) as picture:
        yield np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


def _at(path: str, fps: float, most_s: float | None) -> Iterator[np.ndarray]:
    """The frame that is shown at every 1 / fps; the last one is shown for as long as the one before it."""
    shown: np.ndarray | None = None
    number, before_s, lasts_s = 0, 0.0, 0.0
    for time_s, picture in stream_frames(path):
        while shown is not None and number / fps < time_s - 1e-6:
            yield shown
            number += 1
            if most_s is not None and number >= most_s * fps:
                return
        shown, lasts_s, before_s = picture(), time_s - before_s, time_s
    while shown is not None and (number == 0 or number / fps < before_s + lasts_s - 1e-6):
        yield shown
        number += 1


def cover(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale to cover a size, and trim evenly what is over."""
    tall, wide = picture.shape[:2]
    if (wide, tall) == (width, height):
        return np.ascontiguousarray(picture)
    scale = max(width / wide, height / tall)
    to = (max(width, round(wide * scale)), max(height, round(tall * scale)))
    scaled = (
        np.asarray(Image.fromarray(picture).resize(to, Image.Resampling.BICUBIC)) if to != (wide, tall) else picture
    )
    top, left = (to[1] - height) // 2, (to[0] - width) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])


def hole_of(path: str) -> tuple[int, int, int, int, int, int]:
    """The box around a mask picture's white part, (x, y, width, height), and the mask's own width and height.

    Raises:
        UsageError: If it does not read or has no white in it.
    """
    try:
        with Image.open(path) as picture:
            white = np.asarray(picture.convert("L")) > 127
    except (OSError, UnidentifiedImageError) as e:
        raise UsageError(f"mask {path} does not read: {e}") from e
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    if not len(rows):
        raise UsageError(f"mask {path} has no white part: white is what is made anew")
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y, white.shape[1], white.shape[0]
