"""Black bars: a crop box per shot, by consensus over time.

Each proxy frame gives the brightest luma of every full-resolution row and column.  A row belongs to a bar
if it stays dark in every proxy frame of the shot, and the bar must end in a sharp step, so that a dark
scene with one bright thing in its middle keeps its frame.  A letterboxed film is not a bad film: bars
become `Clip.crop`, never a rejection.  Cost: two maxima over a full-size luma plane, four times a second.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LetterboxConfig:
    """When dark borders count as bars."""

    max_luma: int = 32
    """Brightest luma in a bar, 0-255; video black is 16, and compression adds some noise."""
    min_step: int = 24
    """How much brighter the picture is just inside the bar, 0-255."""
    min_bar: float = 0.02
    """Narrowest bar, as a share of the side."""
    max_asymmetry: float = 0.06
    """Largest difference of opposite bars, as a share of the side."""
    min_picture: float = 0.3
    """Smallest share of the side that the picture fills; less is a dark scene, not a bar."""


def crop_box(
    rows: Sequence[np.ndarray], columns: Sequence[np.ndarray], width: int, height: int, config: LetterboxConfig
) -> list[int] | None:
    """`[x, y, width, height]` inside the bars in shown pixels, all even; None for the whole picture.

    Args:
        rows: Brightest luma of each row, one array per frame of the shot, as shown but before square pixels.
        columns: The same of each column.
        width, height: The picture as shown.
    """
    if not rows or len({len(r) for r in rows}) > 1 or len({len(c) for c in columns}) > 1:
        return None
    top, bottom = _bars(np.max(rows, axis=0), config)
    left, right = _bars(np.max(columns, axis=0), config)
    if not (top or bottom or left or right):
        return None
    y, y_end = _even(top, bottom, height)
    x, x_end = _even(left, right, width)
    return [x, y, x_end - x, y_end - y]


def _bars(profile: np.ndarray, config: LetterboxConfig) -> tuple[float, float]:
    """Width of the bar at both ends, as shares of the side; zeros if there is none."""
    size = len(profile)
    bright = np.flatnonzero(profile > config.max_luma)
    if not len(bright):
        return 0.0, 0.0
    start, end = int(bright[0]), int(bright[-1]) + 1
    before, after = start, size - end
    inside = max(2, size // 60)
    stepped = min(
        profile[start : start + inside].max(initial=0) if before else 255,
        profile[max(0, end - inside) : end].max(initial=0) if after else 255,
    )
    if (
        max(before, after) < config.min_bar * size
        or abs(before - after) > config.max_asymmetry * size
        or (end - start) < config.min_picture * size
        or stepped < config.max_luma + config.min_step
    ):
        return 0.0, 0.0
    return before / size, after / size


def _even(before: float, after: float, size: int) -> tuple[int, int]:
    """Even pixel bounds inside two bars; an uncut side keeps its full (even) length."""
    start = -(-round(before * size) // 2) * 2
    end = round((1 - after) * size) // 2 * 2
    return start, end
