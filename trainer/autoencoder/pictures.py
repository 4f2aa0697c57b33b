"""Clip files to the pictures that the autoencoder sees, in training and for latents alike.

Which frames, at which scale, and what is trimmed is decided in `trainer/shapes.py`; here it is done.
Scaling is Pillow's box-filtered bicubic, which averages when it shrinks.  Cost: one decode of the clip.
"""

import dataclasses

import numpy as np
from PIL import Image

from pipelines.video.read import read_frames
from trainer.shapes import Compression, Fit, FrameChoice, ShapeConfig, choose_frames, fit, whole_frames


class Unfit(Exception):
    """A clip that cannot be trained at these settings; says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Preparation:
    """How a clip becomes pictures; known before anything is decoded."""

    frames: FrameChoice
    fit: Fit


def prepare(
    num_frames: int, fps: float, width: int, height: int, shape: ShapeConfig, compression: Compression
) -> Preparation:
    """Decide frames and size.

    Raises:
        Unfit: If the clip has no frames or no size within the budget.
    """
    try:
        frames = choose_frames(num_frames, fps, shape, compression)
        latent_frames = 1 + (len(frames.indices) - 1) // compression.time
        return Preparation(frames, fit(width, height, latent_frames, shape, compression))
    except ValueError as e:
        raise Unfit(str(e)) from e


def read(path: str, preparation: Preparation, *, square: bool = False) -> np.ndarray:
    """The prepared pictures, (time, height, width, 3) uint8.

    Args:
        square: Cut the square in the middle out first; the preparation is of that square.

    Raises:
        OSError, ValueError: If the file does not hold what its row promises.
    """
    pictures, _ = read_frames(path, indices=preparation.frames.indices)
    return resize(middle_square(pictures) if square else pictures, preparation.fit)


def middle_square(pictures: np.ndarray) -> np.ndarray:
    """The largest square in the middle: what trainers of one shape do to a clip (`experiment framing`)."""
    height, width = pictures.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pictures[:, top : top + side, left : left + side]


def resize(pictures: np.ndarray, to: Fit) -> np.ndarray:
    """Scale, then trim evenly at opposite edges.

    Raises:
        ValueError: If the pictures are not of the size that the fit was made for.
    """
    height, width = pictures.shape[1:3]
    if (round(height * to.scale), round(width * to.scale)) != (to.scaled_height, to.scaled_width):
        raise ValueError(f"pictures are {width}x{height}, which at scale {to.scale:.4f} is not what the row says")
    if to.scale != 1:
        size = (to.scaled_width, to.scaled_height)
        pictures = np.stack([np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BICUBIC)) for p in pictures])
    top, left = to.trimmed_height // 2, to.trimmed_width // 2
    return np.ascontiguousarray(pictures[:, top : top + to.height, left : left + to.width])


def first_frames(pictures: np.ndarray, count: int, start: int, compression: Compression) -> np.ndarray:
    """Up to `count` frames from `start`, cut to 1 + 4k."""
    part = pictures[start : start + count]
    return part[: whole_frames(len(part), compression)]
