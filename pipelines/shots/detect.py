"""Hard cuts: PySceneDetect's adaptive detector, fed from the one pass, and the boundary curve.

`AdaptiveDetector` compares the HSV change of a frame with the mean change of its neighbours, so that a fast
camera is no cut.  Its evidence is kept for every frame as a number in [0, 1] where 0.5 is exactly its
threshold: `0.5 * min(ratio / ratio_threshold, change / change_threshold)`.  Boundaries can so be moved
without decoding, and a clip can say how strong the strongest evidence inside it is.

A flash (a few odd frames, then the same picture again) gives two such peaks; neither is a cut.
Ref: PySceneDetect 0.7, benchmark/README.md: adaptive F1 91.6 on BBC, the best of the classical ones, and
24 on fades, which is why `gradual.py` exists.  Cost: about 0.15 ms per frame on a 160 x 90 picture.
"""

import dataclasses
from typing import Any

import numpy as np

from pipelines.video.frames import SmallPicture


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CutConfig:
    """How hard cuts are found."""

    adaptive_ratio: float = 3.0
    """Change of a frame over the mean change of its neighbours that makes a cut; PySceneDetect's default."""
    min_change: float = 10.0
    """Smallest mean HSV change that can be a cut, 0-255; PySceneDetect's default is 15, for larger pictures."""
    window_frames: int = 2
    """Neighbours on either side; PySceneDetect's default."""
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

    def add(self, picture: SmallPicture) -> None:
        """Show the next frame to the detectors."""
        import cv2

        planar = np.concatenate([p.ravel() for p in (picture.luma, picture.chroma_blue, picture.chroma_red)])
        height, width = picture.luma.shape
        bgr = cv2.cvtColor(planar.reshape(height * 3 // 2, width), cv2.COLOR_YUV2BGR_I420)
        now = self._timecode(len(self._changes), fps=self._fps)
        self._cuts += [c.frame_num for c in self._adaptive.process_frame(now, bgr)]
        self._fades += [c.frame_num for c in self._dark.process_frame(now, bgr)]
        self._changes.append(float(self._adaptive._frame_score or 0.0))  # what its stats file calls content_val

    def fades(self) -> list[int]:
        """Frames that `ThresholdDetector` holds for the middle of a fade through black."""
        return sorted(set(self._fades))

    def result(self) -> tuple[list[int], np.ndarray]:
        """Cut frames (first frame of the new shot), and the boundary curve, (frame,) float32 in [0, 1]."""
        changes = np.array(self._changes, np.float32)
        curve = boundary_curve(changes, self._config)
        tail = range(max(1, len(curve) - self._config.window_frames), len(curve))  # the detector waits for neighbours
        cuts = {c for c in self._cuts if c > 0} | {i for i in tail if curve[i] >= 0.5}
        return sorted(cuts), curve


def boundary_curve(changes: np.ndarray, config: CutConfig) -> np.ndarray:
    """Evidence that a shot begins at each frame; 0.5 is the detector's threshold, the first frame has none."""
    num, window = len(changes), config.window_frames
    if num < 2:
        return np.zeros(num, np.float32)
    values = changes.astype(np.float64)
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(num)
    low, high = np.maximum(1, index - window), np.minimum(num, index + window + 1)  # frame 0 has no change
    neighbours = np.maximum(high - low - (index > 0), 1)
    mean = (total[high] - total[low] - np.where(index > 0, values, 0)) / neighbours
    ratio = values / np.maximum(mean, 1e-3)
    curve = 0.5 * np.minimum(ratio / config.adaptive_ratio, values / config.min_change)
    curve[0] = 0.0
    return np.clip(curve, 0, 1).astype(np.float32)


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
