"""What the tasks on regions share: a box of cells, through all frames, that is given or that is all that is not.

Given cells come from an encoding in which the rest is grey (`base.py`): a cell's latent has seen its neighbours.
"""

import numpy as np

from trainer.shapes import TokenGrid
from trainer.tasks.base import Chain, Draw, Layout, Region, Views


def layout(frames: int, region: Region) -> Layout:
    """One chain, of which a region is given."""
    return Layout((Chain(0, frames),), region)


def drawer(*, inside: bool) -> Draw:
    """Draw one of the views in which the box is given, or everything but the box."""

    def draw(grid: TokenGrid, views: Views, generator: np.random.Generator) -> Layout:
        known = [r for r in views.regions if r.inside == inside]
        return layout(grid.frames, known[int(generator.integers(len(known)))])

    return draw


def holding(views: Views, *, inside: bool) -> bool:
    """Whether there is such a view."""
    return any(r.inside == inside for r in views.regions)
