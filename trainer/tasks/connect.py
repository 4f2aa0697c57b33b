"""Connect two videos: the end of one and the start of another are given, the way between them is generated.

The first is the head of a chain that goes on until the first picture of the second, which is a chain of its own.
"""

import numpy as np

from trainer.shapes import TokenGrid
from trainer.tasks.base import Chain, Layout, Task, Views


def layout(head: int, generated: int, tail: int) -> Layout:
    """So many latent frames given, generated, and given."""
    return Layout((Chain(0, head + generated, head), Chain(head + generated - 1, tail, tail)))


def _draw(grid: TokenGrid, views: Views, generator: np.random.Generator) -> Layout:
    start = int(generator.choice(views.tails))
    head = int(generator.integers(1, start + 1))
    return layout(head, start + 1 - head, grid.frames - start - 1)


TASK = Task("connect", "the way from one video to another", _draw, lambda grid, views: bool(views.tails), "tails")
