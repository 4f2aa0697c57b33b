"""Text to video (and to image, for one frame): nothing is given, everything is generated."""

import numpy as np

from trainer.shapes import TokenGrid
from trainer.tasks.base import Task


def given(grid: TokenGrid) -> np.ndarray:
    """No token."""
    return np.zeros((grid.frames, grid.height, grid.width), dtype=bool)


TASK = Task("text_to_video", given)
