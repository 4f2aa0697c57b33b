"""Framing: is the subject of a video whole and in the picture?  By the probe's masks, on renders and generated alike.

A frame counts as whole where the largest piece that stands out of the background touches no edge and covers a plausible
part of the picture: at least what the probe needs to see it (1.2 %), at most half.  A video counts as whole where
every frame does.  The background's texture may hang a thread of a pixel or two on a piece; what touches an edge with no
more than 4 % of the short side does not count as cut.  Cost: about 10 ms per video of 9 frames of 64 x 64.
"""

import dataclasses

import numpy as np

from pipelines.synthetic.probe import Mask, pieces
from pipelines.synthetic.render import Frame

_MOST = 0.5
"""Share of the picture; a large subject covers a quarter of a square one."""

_THREAD = 0.04
"""Of the short side."""


@dataclasses.dataclass(frozen=True, slots=True)
class Framing:
    """How a video's main subject lies in its frames."""

    whole: bool
    """In every frame."""
    frames_whole: float
    """Share of frames, [0, 1]."""
    frames_seen: float
    """Share of frames in which there is a subject at all, [0, 1]."""


def framing(frames: Frame) -> Framing:
    """Measure (time, height, width, 3) uint8 RGB."""
    masks = pieces(frames)
    whole = [m is not None and is_whole(m) for m in masks]
    seen = [m is not None for m in masks]
    return Framing(all(whole), float(np.mean(whole)), float(np.mean(seen)))


def is_whole(mask: Mask) -> bool:
    """Whether a piece touches no edge and is of a plausible size."""
    touching = max(int(edge.sum()) for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    return bool(touching <= _THREAD * min(mask.shape) and mask.mean() <= _MOST)
