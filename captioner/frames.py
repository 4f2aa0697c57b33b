"""Decides which moments of a clip a captioner sees, and at which size: one specification for training and inference.

Two rules.  *When*: the span `[start_s, end_s)` is divided into equal bins, and of each the frame is taken
that is on screen at its centre (the last one at or before it), so that eight frames that lie evenly over a
span are taken as they are, sixteen are thinned and four are held.  *How large*: sides are multiples of a
cell, their area is close to a budget and their ratio close to the picture's, so that nothing is squashed to a
square and nothing is padded; clips of one shape are batched together.

Training and inference differing in frames is the most reported fault of video captioners (vLLM #26902,
Qwen3-VL #2057, LlamaFactory #9620); here both call `pixels`, and a test holds them to the same tensor.
Cost: a JPEG decode and a resize per frame, about 0.2 ms each for a proxy.
"""

import dataclasses
import functools
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

_ON_SCREEN_S = 1e-6  # a frame that starts this little after the centre of a bin counts as on screen: float noise


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrameSpec:
    """What of a clip a model sees."""

    num_frames: int = 8
    """Frames per clip, [1, 256].  8 as in the trials of the from-scratch captioner (facts/captioner.md 6.4)."""
    area: int = 48 * 48
    """Pixels per frame to aim at; 0 keeps the proxy's own size (for pretrained models that resize themselves)."""
    multiple: int = 8
    """Both sides are multiples of this many pixels, so that the strides of the stem divide them."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_frames <= 256:
            raise ValueError(f"num_frames must be in [1, 256], got {self.num_frames}")
        if self.multiple < 1 or (self.area and self.area < self.multiple**2):
            raise ValueError(f"area must hold one cell of {self.multiple} pixels a side, got {self.area}")


def moments(times_s: Sequence[float], start_s: float, end_s: float, num_frames: int) -> list[int]:
    """Positions in `times_s` (ascending) of the frames to show, evenly over `[start_s, end_s)`.

    Raises:
        ValueError: If no frame lies in the span.
    """
    inside = [i for i, t in enumerate(times_s) if start_s - _ON_SCREEN_S <= t < end_s - _ON_SCREEN_S]
    if not inside:
        raise ValueError(f"no frame between {start_s:.3f} s and {end_s:.3f} s")
    step_s = (end_s - start_s) / num_frames
    centres = [start_s + (n + 0.5) * step_s for n in range(num_frames)]
    return [max((i for i in inside if times_s[i] <= c + _ON_SCREEN_S), default=inside[0]) for c in centres]


def span_of(times_s: Sequence[float]) -> tuple[float, float]:
    """The span that evenly timed frames stand for: the last one is held as long as the others."""
    hold_s = (times_s[-1] - times_s[0]) / (len(times_s) - 1) if len(times_s) > 1 else 1.0
    return times_s[0], times_s[-1] + hold_s


@functools.lru_cache(maxsize=4096)
def size_for(width: int, height: int, spec: FrameSpec) -> tuple[int, int]:
    """The (height, width) at which a picture of this size is seen.

    Of all sides that are multiples of the cell and within a factor of two of the area, the one with the least
    error of ratio and of area, both as logarithms; ties go to the smaller.
    """
    if not spec.area:
        return height, width
    budget = spec.area / spec.multiple**2
    longest = math.ceil(budget * 2)
    best: tuple[float, int, int] = (math.inf, 0, 0)
    for h in range(1, longest + 1):
        w_exact = h * width / height
        for w in {max(1, math.floor(w_exact)), math.ceil(w_exact), max(1, math.floor(budget / h)), 1}:
            if not budget / 2 <= h * w <= budget * 2:
                continue
            error = abs(math.log(w * height / (h * width))) + abs(math.log(h * w / budget))
            best = min(best, (round(error, 9), h * w, h))
    _, cells, h = best
    return h * spec.multiple, cells // h * spec.multiple


def crop_box(
    crop: Sequence[int] | None, shown: tuple[int, int], proxy: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """A clip's crop (x, y, width, height in display pixels) on a proxy of another size: left, top, right, bottom.

    Args:
        shown: The video's (width, height) as shown.
        proxy: The proxy's (width, height).
    """
    if not crop:
        return None
    x, y, w, h = crop
    across, down = proxy[0] / shown[0], proxy[1] / shown[1]
    return x * across, y * down, min((x + w) * across, proxy[0]), min((y + h) * down, proxy[1])


def pixels(
    jpegs: Sequence[bytes],
    spec: FrameSpec,
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Chosen JPEGs to the array a model sees: uint8 RGB, (time, height, width, 3).

    Raises:
        ValueError: If a JPEG does not decode.
    """
    size: tuple[int, int] | None = None
    decoded: dict[bytes, np.ndarray[Any, np.dtype[np.uint8]]] = {}  # a frame that is held is decoded once
    for jpeg in jpegs:
        if jpeg in decoded:
            continue
        try:
            picture = Image.open(io.BytesIO(jpeg)).convert("RGB")
        except UnidentifiedImageError as e:  # its own text holds a memory address, and this one ends up in a row
            raise ValueError("a frame does not decode: it is no picture") from e
        except (OSError, SyntaxError, ValueError) as e:
            raise ValueError(f"a frame does not decode: {e}") from e
        left, top, right, bottom = box or (0.0, 0.0, float(picture.width), float(picture.height))
        if size is None:
            size = size_for(max(1, round(right - left)), max(1, round(bottom - top)), spec)
        height, width = size
        small = picture.resize((width, height), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
        decoded[jpeg] = np.asarray(small)
    return np.stack([decoded[j] for j in jpegs])
