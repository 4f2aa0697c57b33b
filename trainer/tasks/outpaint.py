"""Outpaint: a box of cells is given, and the picture is continued around it."""

from trainer.tasks.base import Task
from trainer.tasks.regions import drawer, holding

TASK = Task(
    "outpaint",
    "a video continued beyond its edges",
    drawer(inside=True),
    lambda grid, views: holding(views, inside=True),
    "regions",
)
