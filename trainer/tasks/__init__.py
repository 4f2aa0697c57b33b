"""The list of tasks, and how one is drawn for a training sample.  A new task is one file and one line."""

import numpy as np

from trainer.shapes import TokenGrid
from trainer.tasks import (
    connect,
    edit_region,
    extend_backward,
    extend_forward,
    fill_in,
    image_to_video,
    inpaint,
    loop,
    outpaint,
    text_to_image,
    text_to_video,
    video_to_video,
)
from trainer.tasks.base import Task, Views

TASKS: dict[str, Task] = {
    t.name: t
    for t in (
        text_to_video.TASK,
        text_to_image.TASK,
        image_to_video.TASK,
        extend_forward.TASK,
        extend_backward.TASK,
        connect.TASK,
        fill_in.TASK,
        inpaint.TASK,
        outpaint.TASK,
        edit_region.TASK,
        loop.TASK,
        video_to_video.TASK,
    )
}


def draw(weights: dict[str, float], grid: TokenGrid, views: Views, generator: np.random.Generator) -> Task:
    """Draw a task by weight among those that fit the sample; where none does (a still image), nothing is given."""
    usable = [TASKS[name] for name, weight in weights.items() if weight > 0 and TASKS[name].fits(grid, views)]
    if not usable:
        return text_to_video.TASK
    shares = np.cumsum([weights[t.name] for t in usable])
    return usable[int(np.searchsorted(shares, generator.random() * shares[-1], side="right"))]
