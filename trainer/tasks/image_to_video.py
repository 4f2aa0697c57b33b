"""Image to video: the first latent frame is given.

A causal autoencoder's first latent depends on the first picture alone, so it is the latent of that picture
and nothing leaks from the frames to be generated.
"""

import numpy as np

from trainer.shapes import TokenGrid
from trainer.tasks.base import Task


def given(grid: TokenGrid) -> np.ndarray:
    """The tokens of the first latent frame."""
    mask = np.zeros((grid.frames, grid.height, grid.width), dtype=bool)
    mask[0] = True
    return mask


def fits(grid: TokenGrid) -> bool:
    """A single frame would leave nothing to generate."""
    return grid.frames > 1


TASK = Task("image_to_video", given, fits)
