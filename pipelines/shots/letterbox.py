"""Black bars: a crop box per shot, by consensus over time.

Each proxy frame leaves eight numbers (`frames.edges`): the first and last row and column that is brighter than
black anywhere, and the same for clearly brighter.  A row belongs to a bar if it stays dark in every proxy frame
of the shot, and the bar must end in a sharp step, so that a dark scene with one bright thing in its middle keeps
its frame.  A letterboxed film is not a bad film: bars become `Clip.crop`, never a rejection.
Cost: two maxima over a full-size luma plane, four times a second.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EdgeConfig:
    """What is dark; asked of every proxy frame."""

    max_luma: int = 32
    """Brightest luma in a bar, 0-255; video black is 16, and compression adds some noise."""
    min_step: int = 24
    """How much brighter the picture is just inside the bar, 0-255."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LetterboxConfig:
    """When dark borders count as bars."""

    min_bar: float = 0.02
    """Narrowest bar, as a share of the side."""
    max_asymmetry: float = 0.06
    """Largest difference of opposite bars, as a share of the side."""
    min_picture: float = 0.3
    """Smallest share of the side that the picture fills; less is a dark scene, not a bar."""


def edges(rows: np.ndarray, columns: np.ndarray, config: EdgeConfig) -> list[int]:
    """Ten numbers of one frame: rows, columns, then margins (top, bottom, left, right) that are dark, and not bright.

    Args:
        rows, columns: Brightest luma of each full-resolution row and column, as shown but before square pixels.
    """
    dark, bright = config.max_luma, config.max_luma + config.min_step - 1
    return [
        len(rows),
        len(columns),
        *(m for level in (dark, bright) for profile in (rows, columns) for m in _margins(profile, level)),
    ]


def _margins(profile: np.ndarray, level: int) -> tuple[int, int]:
    """How many entries at either end are not above a level; all of them if none is."""
    above = np.flatnonzero(profile > level)
    return (int(above[0]), len(profile) - 1 - int(above[-1])) if len(above) else (len(profile), len(profile))


def crop_box(frames: Sequence[Sequence[int]], width: int, height: int, config: LetterboxConfig) -> list[int] | None:
    """`[x, y, width, height]` inside the bars in shown pixels, all even; None for the whole picture.

    Args:
        frames: `edges` of each proxy frame of the shot.
        width, height: The picture as shown.
    """
    if not frames or len({tuple(f[:2]) for f in frames}) > 1:
        return None
    num_rows, num_columns = frames[0][:2]
    top, bottom, left, right, *sharp = np.min([f[2:] for f in frames], axis=0).tolist()
    above, below = _bars(top, bottom, sharp[0], sharp[1], num_rows, config)
    before, after = _bars(left, right, sharp[2], sharp[3], num_columns, config)
    if not (above or below or before or after):
        return None
    y, y_end = _even(above, below, height)
    x, x_end = _even(before, after, width)
    return [x, y, x_end - x, y_end - y]


def _bars(
    before: int, after: int, step_before: int, step_after: int, size: int, config: LetterboxConfig
) -> tuple[float, float]:
    """Width of the bar at both ends, as shares of the side; zeros if there is none."""
    inside = max(2, size // 60)
    soft = (before and step_before >= before + inside) or (after and step_after >= after + inside)
    if (
        before >= size
        or soft
        or max(before, after) < config.min_bar * size
        or abs(before - after) > config.max_asymmetry * size
        or size - before - after < config.min_picture * size
    ):
        return 0.0, 0.0
    return before / size, after / size


def _even(before: float, after: float, size: int) -> tuple[int, int]:
    """Even pixel bounds inside two bars; an uncut side keeps its full (even) length."""
    start = -(-round(before * size) // 2) * 2
    end = round((1 - after) * size) // 2 * 2
    return start, end
