"""Text to image: a video of one frame, through the same weights."""

from trainer.tasks.base import Task, nothing

TASK = Task(
    "text_to_image",
    "a picture from text",
    lambda grid, views, generator: nothing(grid),
    fits=lambda grid, views: grid.frames == 1,
)
