"""Video to video: no token is given; sampling starts from a source noised to t = `strength`, not from noise alone.

Trained as text to video is.  Source: SDEdit, arXiv:2108.01073.
"""

from trainer.tasks.base import Task, nothing

TASK = Task(
    "video_to_video", "a video made anew from its own rough shape", lambda grid, views, generator: nothing(grid)
)
