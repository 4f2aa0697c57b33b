"""Extend forward: the first latent frames are given, what follows is generated.

The head of a causal encoding has seen nothing of what comes after, so it is given as it stands.
"""

import numpy as np

from trainer.shapes import TokenGrid
from trainer.tasks.base import Chain, Layout, Task, Views


def layout(given: int, generated: int) -> Layout:
    """One chain: so many latent frames given, so many to generate."""
    return Layout((Chain(0, given + generated, given),))


def _draw(grid: TokenGrid, views: Views, generator: np.random.Generator) -> Layout:
    given = int(generator.integers(1, grid.frames))
    return layout(given, grid.frames - given)


TASK = Task("extend_forward", "what comes after a video", _draw, lambda grid, views: grid.frames > 1)
