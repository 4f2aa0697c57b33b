"""Inpaint: a box of cells is generated to fit what is around it, which is given."""

from trainer.tasks.base import Task
from trainer.tasks.regions import drawer, holding

TASK = Task(
    "inpaint",
    "a hole in a video filled",
    drawer(inside=False),
    lambda grid, views: holding(views, inside=False),
    "regions",
)
