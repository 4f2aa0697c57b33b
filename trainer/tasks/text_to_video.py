"""Text to video (and to image, for one frame): nothing is given, everything is generated."""

from trainer.tasks.base import Task, nothing

TASK = Task("text_to_video", "a video from text", lambda grid, views, generator: nothing(grid))
