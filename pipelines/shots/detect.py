"""Hard cuts: PySceneDetect's adaptive detector on the numbers of the one pass, and the boundary curve.

`AdaptiveDetector` compares the HSV change of a frame with the mean change of its neighbours, so that a fast
camera is no cut.  Evidence is kept for every frame as a number in [0, 1] where 0.5 is exactly the threshold (each
measure over its bound, the weakest of those that must hold together).  Boundaries can so be moved without
decoding, and a clip can say how strong the strongest evidence inside it is.

`flash.py` says which of its peaks are flashes, `boundaries.py` where the shots begin.
Ref: PySceneDetect 0.7, benchmark/README.md: adaptive F1 91.6 on BBC, the best of the classical ones, and
24 on fades, which is why `gradual.py` exists.  `signals.py` measures what it compares, on 80 x 45 pixels.
"""

import dataclasses

import numpy as np

from pipelines.shots.gradual import speeds
from pipelines.shots.signals import THUMB

_DARK = 14
"""Mean luma, 0-219, under which relative brightness means nothing."""
_BLOCK = 4096
"""Frames at a time: a film has 200,000, and a thumbnail in float32 takes 1 kB."""
_REPEAT = 4e-4
"""Mean change of the thumbnail under which a frame is the one before once more, [0, 1]."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CutConfig:
    """How hard cuts are found."""

    adaptive_ratio: float = 3.0
    """Change of a frame over the mean change of its neighbours that makes a cut; PySceneDetect's default."""
    min_change: float = 10.0
    """Smallest mean HSV change that can be a cut, 0-255; PySceneDetect's default is 15, for larger pictures."""
    window_frames: int = 2
    """Neighbours on either side; PySceneDetect's default."""
    min_step: float = 0.006
    """Smallest mean change of the YUV thumbnail at a cut, [0, 1]; the hue of grey pixels jumps without one."""
    min_step_ratio: float = 1.5
    """That change over the largest one of the neighbours; with doubled frames the mean one says little."""
    min_structure: float = 0.05
    """Change of the brightness-normalised thumbnail that is a cut whatever else flickers, relative luma."""
    structure_ratio: float = 4.0
    """That change over the mean one of the neighbours."""

    def __post_init__(self) -> None:
        if self.adaptive_ratio <= 1 or self.min_change <= 0 or self.window_frames < 1:
            raise ValueError("adaptive_ratio must be above 1, min_change above 0, window_frames at least 1")


def cut_evidence(changes: np.ndarray, thumbs: np.ndarray, config: CutConfig) -> np.ndarray:
    """Evidence that a shot begins at a frame, (frame,) float32 in [0, 1]; 0.5 is exactly the bounds.

    At 0.5 these are PySceneDetect's cuts, confirmed on the YUV thumbnails (hue is noise where there is no colour,
    and key frames make it jump), and cuts between flickering or dark pictures, found on thumbnails of equal
    brightness.

    Args:
        changes: PySceneDetect's `content_val` of every frame, mean HSV change in 0-255 (`SignalCurves.change`).
        thumbs: (frame, 384) uint8.
    """
    steps, structure = speeds(thumbs), structure_steps(thumbs)
    repeats = steps < _REPEAT
    colour = _ratio(changes, repeats, config.window_frames) / config.adaptive_ratio
    colour = np.minimum(changes / config.min_change, colour)
    confirmed = np.minimum(
        steps / config.min_step, _over_neighbours(steps, config.window_frames) / config.min_step_ratio
    )
    shape = _ratio(structure, repeats, config.window_frames) / config.structure_ratio
    shape = np.minimum(structure / config.min_structure, shape)
    shape = np.where(steps >= 2 * config.min_step, shape, 0)
    curve = np.clip(0.5 * np.maximum(np.minimum(colour, confirmed), shape), 0, 1).astype(np.float32)
    curve[:1] = 0
    return curve


def structure_steps(thumbs: np.ndarray) -> np.ndarray:
    """Mean change of the luma thumbnail after both are brought to mean 1; 0 where it is black.  In blocks."""
    out = np.zeros(len(thumbs))
    for start in range(1, len(thumbs), _BLOCK):
        end = min(start + _BLOCK, len(thumbs))
        luma = np.maximum(thumbs[start - 1 : end, : THUMB * THUMB].astype(np.float32) - 16, 0)
        mean = luma.mean(axis=1)
        even = luma / np.maximum(mean, 8)[:, None]
        steps = np.abs(even[1:] - even[:-1]).mean(axis=1)
        out[start:end] = np.where(np.minimum(mean[1:], mean[:-1]) < _DARK, 0, steps)
    return out


def _over_neighbours(values: np.ndarray, window: int) -> np.ndarray:
    """Each value over the largest of its neighbours; a blended frame on one side of a cut does not count."""
    padded = np.pad(values.astype(np.float64), window)
    padded[window : window + 1] = 0  # the first frame has no change
    shifted = {k: padded[window + k : window + k + len(values)] for k in range(-window, window + 1)}
    near = np.minimum(shifted[-1], shifted[1])
    far = [shifted[k] for k in shifted if abs(k) > 1]
    return np.asarray(values / np.maximum(np.max([near, *far], axis=0), 1e-4))


def _ratio(values: np.ndarray, repeats: np.ndarray, window: int) -> np.ndarray:
    """Each value over the mean of its neighbours; the first frame has no change and counts for nothing.

    Where frames repeat (30 frames a second in a file of 60), half of the neighbours have no change at all and a
    fast pan looks like one cut after the other; there twice as many neighbours are asked, repeats left out.
    """
    exact, counted = values.astype(np.float64), np.ones(len(values))
    counted[:1] = 0
    plain = _over_mean(exact, counted, window)
    wider = _over_mean(exact, np.where(repeats, 0, counted), 2 * window)
    repeated = _around(repeats.astype(np.float64), 2 * window) >= window
    repeated &= _around(np.where(repeats, 0, counted), 2 * window) > window
    return np.where(repeated, np.minimum(plain, wider), plain)


def _over_mean(values: np.ndarray, weights: np.ndarray, window: int) -> np.ndarray:
    """Each value over the weighted mean of its neighbours, 1e-4 at least."""
    mean = np.maximum(_around(weights * values, window), 0) / np.maximum(_around(weights, window), 1)
    return np.asarray(values / np.maximum(mean, 1e-4))


def _around(values: np.ndarray, window: int) -> np.ndarray:
    """Sum over the neighbours on both sides of each frame, without itself."""
    index = np.arange(len(values))
    low, high = np.maximum(0, index - window), np.minimum(len(values), index + window + 1)
    total = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray(total[high] - total[low] - values)
