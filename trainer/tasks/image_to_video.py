"""Image to video: the first latent frame is given.

A causal autoencoder's first latent depends on the first picture alone, so it is the latent of that picture
and nothing leaks from the frames to be generated.
"""

from trainer.shapes import TokenGrid
from trainer.tasks.base import Chain, Layout, Task


def layout(frames: int) -> Layout:
    """One chain whose first latent frame is given."""
    return Layout((Chain(0, frames, given=1),))


def _fits(grid: TokenGrid, views: object) -> bool:
    """A single frame would leave nothing to generate."""
    return grid.frames > 1


TASK = Task("image_to_video", "a picture set in motion", lambda grid, views, generator: layout(grid.frames), _fits)
