"""What a task is: which tokens are given and which are generated.

A given token is clean, at noise level 0 and without loss; a generated one is noised and learned.  Training
and sampling use the same masks.  Source: per-token noise levels as in Wan2.2 (TI2V) and LTX-2.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from trainer.shapes import TokenGrid


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """A name and a pure function from the grid to the given tokens."""

    name: str
    given: Callable[[TokenGrid], np.ndarray]
    """Grid to a bool array (frames, height, width): True where the token is given."""
    fits: Callable[[TokenGrid], bool] = lambda grid: True
    """Whether a sample of this grid can be trained on the task (something must be left to generate)."""


def flat(task: Task, grid: TokenGrid) -> np.ndarray:
    """Given tokens in token order (time, height, width)."""
    return task.given(grid).reshape(grid.num_tokens)
