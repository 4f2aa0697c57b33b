"""Fill in: a video with gaps; every stretch that is there is given, what is missing is generated.

Each stretch after a gap is a chain of its own, and each gap ends at the first picture of the next stretch.
"""

from collections.abc import Sequence

import numpy as np

from trainer.shapes import TokenGrid
from trainer.tasks.base import Chain, Layout, Task, Views


def layout(stretches: Sequence[int], gaps: Sequence[int]) -> Layout:
    """Latent frames that are given in each stretch, and those to generate in each gap between two of them.

    Raises:
        ValueError: If there are not as many gaps as places between stretches.
    """
    if len(gaps) != len(stretches) - 1:
        raise ValueError(f"{len(stretches)} stretches have {len(stretches) - 1} gaps between them, got {len(gaps)}")
    chains, start = [], 0
    for given, gap in zip(stretches, (*gaps, 0)):
        chains.append(Chain(start, given + gap, given))
        start += given + gap - 1
    return Layout(tuple(chains))


def _draw(grid: TokenGrid, views: Views, generator: np.random.Generator) -> Layout:
    """One or two gaps, as tails and length allow."""
    tails = sorted(int(t) for t in views.tails)
    two = [(a, b) for a in tails for b in tails if a < b <= grid.frames - 3]
    starts = (
        two[int(generator.integers(len(two)))] if two and generator.random() < 0.5 else (int(generator.choice(tails)),)
    )
    ends = (*starts, grid.frames - len(starts) - 1)
    stretches, gaps, begin = [], [], 0
    for end in ends[:-1]:
        given = int(generator.integers(1, end - begin + 1))
        stretches.append(given)
        gaps.append(end - begin + 1 - given)
        begin = end
    return layout((*stretches, ends[-1] - begin + 1), gaps)


TASK = Task("fill_in", "the missing frames of a video", _draw, lambda grid, views: bool(views.tails), "tails")
