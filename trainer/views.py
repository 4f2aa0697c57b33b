"""Pictures as a task gives them: a tail without what was before it, a region with the rest greyed out.

The same functions make the views that training sees (stage `latents`) and what is encoded when sampling.
Grey is the middle of the range, 0 inside the autoencoder.  Cost: a copy of the pictures per region.
"""

import numpy as np

from trainer.shapes import Compression
from trainer.tasks.base import Region, Views

GREY = 128


def as_given(pictures: np.ndarray, views: Views, sizes: Compression) -> dict[str, np.ndarray]:
    """A clip's views by name, (time, height, width, 3) uint8 each; `pictures` are 1 + 4k, of whole cells."""
    tails = {f"tail {t}": pictures[t * sizes.time :] for t in views.tails}
    return tails | {r.name: greyed(pictures, r, sizes) for r in views.regions}


def given_pixels(region: Region, height: int, width: int, sizes: Compression) -> np.ndarray:
    """Which pixels a region gives, bool (height, width)."""
    cells = region.given(height // sizes.cell, width // sizes.cell)
    return cells.repeat(sizes.cell, axis=0).repeat(sizes.cell, axis=1)


def greyed(pictures: np.ndarray, region: Region, sizes: Compression) -> np.ndarray:
    """The pictures with everything grey that the region does not give."""
    mask = given_pixels(region, pictures.shape[1], pictures.shape[2], sizes)
    return np.where(mask[None, :, :, None], pictures, np.uint8(GREY))
