"""Loop: nothing is given, and time is cyclic while sampling (`trainer/cyclic.py`); trained as text to video is."""

from trainer.shapes import TokenGrid
from trainer.tasks.base import Task, Views, nothing


def _fits(grid: TokenGrid, views: Views) -> bool:
    """A picture has no end to join to its start."""
    return grid.frames > 2


TASK = Task("loop", "a video whose end goes over into its start", lambda grid, views, generator: nothing(grid), _fits)
