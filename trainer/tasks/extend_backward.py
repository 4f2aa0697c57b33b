"""Extend backward: a tail is given, what leads to it is generated.

The tail is a chain of its own (see `base.py`); the generated chain ends at the tail's first picture.
"""

import numpy as np

from trainer.shapes import TokenGrid
from trainer.tasks.base import Chain, Layout, Task, Views


def layout(generated: int, given: int) -> Layout:
    """A generated chain of so many latent frames (its last picture is the tail's first), then the tail."""
    return Layout((Chain(0, generated), Chain(generated - 1, given, given)))


def _draw(grid: TokenGrid, views: Views, generator: np.random.Generator) -> Layout:
    start = int(generator.choice(views.tails))
    return layout(start + 1, grid.frames - start - 1)


TASK = Task("extend_backward", "what came before a video", _draw, lambda grid, views: bool(views.tails), "tails")
