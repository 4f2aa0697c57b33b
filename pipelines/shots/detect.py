"""Hard cuts: PySceneDetect's adaptive detector, fed from the one pass, and the boundary curve.

`AdaptiveDetector` compares the HSV change of a frame with the mean change of its neighbours, so that a fast
camera is no cut.  Evidence is kept for every frame as a number in [0, 1] where 0.5 is exactly the threshold (each
measure over its bound, the weakest of those that must hold together).  Boundaries can so be moved without
decoding, and a clip can say how strong the strongest evidence inside it is.

A flash (a few odd frames, then the same picture again) gives two such peaks; neither is a cut.
Ref: PySceneDetect 0.7, benchmark/README.md: adaptive F1 91.6 on BBC, the best of the classical ones, and
24 on fades, which is why `gradual.py` exists.  Cost: about 0.1 ms per frame on an 80 x 45 picture.
"""

import dataclasses
from typing import Any

import numpy as np

from pipelines.shots.gradual import speeds
from pipelines.shots.signals import THUMB
from pipelines.video.frames import SmallPicture

_DARK = 14
"""Mean luma, 0-219, under which relative brightness means nothing."""


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
    min_structure: float = 0.04
    """Change of the brightness-normalised thumbnail that is a cut whatever else flickers, relative luma."""
    structure_ratio: float = 4.0
    """That change over the mean one of the neighbours."""
    flash_s: float = 0.2
    """A deviation that ends within this time in the picture it left is a flash, s."""
    flash_similarity: float = 0.35
    """How much of the flash's own change may remain between the pictures round it, [0, 1]."""

    def __post_init__(self) -> None:
        if self.adaptive_ratio <= 1 or self.min_change <= 0 or self.window_frames < 1:
            raise ValueError("adaptive_ratio must be above 1, min_change above 0, window_frames at least 1")


class CutDetector:
    """PySceneDetect's detectors on the frames of one video."""

    def __init__(self, fps: float, config: CutConfig) -> None:
        from scenedetect import FrameTimecode
        from scenedetect.detectors import AdaptiveDetector, ThresholdDetector

        self._config, self._fps, self._timecode = config, max(fps, 1.0), FrameTimecode
        self._adaptive: Any = AdaptiveDetector(
            adaptive_threshold=config.adaptive_ratio,
            min_scene_len=1,
            window_width=config.window_frames,
            min_content_val=config.min_change,
        )
        self._dark: Any = ThresholdDetector(min_scene_len=1)
        self._cuts: list[int] = []
        self._fades: list[int] = []
        self._changes: list[float] = []

    def add(self, picture: SmallPicture) -> list[int]:
        """Show the next frame to the detectors; returns the cuts they found among the last few frames."""
        import cv2

        size = picture.chroma_blue.shape[::-1]  # half of the small picture: detectors want no detail
        luma = cv2.resize(picture.luma, size, interpolation=cv2.INTER_AREA)
        bgr = cv2.cvtColor(cv2.merge([luma, picture.chroma_red, picture.chroma_blue]), cv2.COLOR_YCrCb2BGR)
        now = self._timecode(len(self._changes), fps=self._fps)
        found = [int(c.frame_num) for c in self._adaptive.process_frame(now, bgr)]
        self._cuts += found
        self._fades += [c.frame_num for c in self._dark.process_frame(now, bgr)]
        self._changes.append(float(self._adaptive._frame_score or 0.0))  # what its stats file calls content_val
        return found

    def fades(self) -> list[int]:
        """Frames that `ThresholdDetector` holds for the middle of a fade through black."""
        return sorted(set(self._fades))

    def changes(self) -> np.ndarray:
        """PySceneDetect's `content_val` of every frame, mean HSV change in 0-255."""
        return np.array(self._changes, np.float32)

    def cuts(self) -> set[int]:
        """Frames that PySceneDetect holds for the first of a new shot."""
        return set(self._cuts)


def find_cuts(
    detected: set[int], changes: np.ndarray, thumbs: np.ndarray, config: CutConfig
) -> tuple[list[int], np.ndarray]:
    """Cut frames (first frame of the new shot), and the boundary curve, (frame,) float32 in [0, 1].

    PySceneDetect's cuts are confirmed on the YUV thumbnails (hue is noise where there is no colour, and key
    frames make it jump); cuts between flickering or dark pictures are found on thumbnails of equal brightness.

    Args:
        detected: PySceneDetect's cuts; those of the last frames are taken from the curve, since the detector
            waits for neighbours that never come.
    """
    steps, structure = speeds(thumbs), structure_steps(thumbs)
    colour = np.minimum(changes / config.min_change, _ratio(changes, config.window_frames) / config.adaptive_ratio)
    confirmed = np.minimum(
        steps / config.min_step, _over_neighbours(steps, config.window_frames) / config.min_step_ratio
    )
    shape = np.minimum(
        structure / config.min_structure, _ratio(structure, config.window_frames) / config.structure_ratio
    )
    shape = np.where(steps >= 2 * config.min_step, shape, 0)
    curve = np.clip(0.5 * np.maximum(np.minimum(colour, confirmed), shape), 0, 1).astype(np.float32)
    curve[:1] = 0
    tail = range(max(1, len(curve) - config.window_frames), len(curve))
    found = {c for c in detected if 0 < c < len(curve) and confirmed[c] >= 1}
    found |= {i for i in np.flatnonzero(shape >= 1).tolist() if i > 0} | {i for i in tail if curve[i] >= 0.5}
    return sorted(found), curve


def structure_steps(thumbs: np.ndarray) -> np.ndarray:
    """Mean change of the luma thumbnail after both are brought to mean 1; 0 where it is black."""
    luma = np.maximum(thumbs[:, : THUMB * THUMB].astype(np.float32) - 16, 0)
    mean = luma.mean(axis=1)
    even = luma / np.maximum(mean, 8)[:, None]
    out = np.zeros(len(thumbs))
    out[1:] = np.abs(even[1:] - even[:-1]).mean(axis=1)
    out[1:][np.minimum(mean[1:], mean[:-1]) < _DARK] = 0
    return out


def _over_neighbours(values: np.ndarray, window: int) -> np.ndarray:
    """Each value over the largest of its neighbours."""
    padded = np.pad(values.astype(np.float64), window)
    padded[window : window + 1] = 0  # the first frame has no change
    shifted = [padded[window + k : window + k + len(values)] for k in range(-window, window + 1) if k]
    return values / np.maximum(np.max(shifted, axis=0), 1e-4)


def _ratio(values: np.ndarray, window: int) -> np.ndarray:
    """Each value over the mean of its neighbours; the first frame has no change and counts for nothing."""
    num = len(values)
    exact = values.astype(np.float64)
    total = np.concatenate([[0.0], np.cumsum(exact)])
    index = np.arange(num)
    low, high = np.maximum(1, index - window), np.minimum(num, index + window + 1)
    count = np.maximum(high - low - (index > 0), 1)
    mean = (total[np.maximum(high, low)] - total[low] - np.where(index > 0, exact, 0)) / count
    return exact / np.maximum(mean, 1e-4)


def without_flashes(cuts: list[int], thumbs: np.ndarray, seconds: np.ndarray, config: CutConfig) -> list[int]:
    """Drop pairs of cuts between which the picture leaves and comes back."""
    kept: list[int] = []
    skip = -1
    for position, cut in enumerate(cuts):
        if cut <= skip:
            continue
        later = [c for c in cuts[position + 1 :] if seconds[c] - seconds[cut] <= config.flash_s]
        back = next((c for c in reversed(later) if _comes_back(thumbs, cut, c, config)), None)
        if back is None:
            kept.append(cut)
        else:
            skip = back
    return kept


def _comes_back(thumbs: np.ndarray, start: int, end: int, config: CutConfig) -> bool:
    before, inside, after = (thumbs[i].astype(np.int16) for i in (start - 1, start, end))
    return bool(np.abs(before - after).mean() < config.flash_similarity * np.abs(before - inside).mean())
