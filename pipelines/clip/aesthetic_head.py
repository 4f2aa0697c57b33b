"""The aesthetic head that is trained here: it tells sound frames from damaged ones, and knows nothing of beauty.

A linear head on the features of the CLIP that was trained here learns 7 points for the frames of the pairs and
3 for the same frames blurred, darkened, written on or marked with a logo, as the synthetic world's defects do.
It stands in for a head such as LAION's, so that the path from a head's file to a verdict can be run and
tested without a download; its card says how well it tells the two apart on held-out pairs (area under the
curve, 0.5 is chance).  Real beauty wants a real CLIP and a head by path.  Cost: two picture passes per pair.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines.clip.heads import Head, auc, fit_head
from pipelines.synthetic.defects import damage_picture
from pipelines.video.frames import read_jpeg

SOUND, DAMAGED = 7.0, 3.0
KNOWS = {"knows": "synthetic", "scale": "7 for sound frames, 3 for blurred, dark, written-on and marked ones"}
"""Written into the head's file."""
_DAMAGE = ("blur", "dark", "text", "watermark")
_MOST_PAIRS = 400


def aesthetic_head(
    encode: Callable[[np.ndarray], np.ndarray],
    size: int,
    train: list[dict[str, Any]],
    held_out: list[dict[str, Any]],
) -> tuple[Head, dict[str, Any]]:
    """The head, and how well it does on held-out pairs.

    Args:
        encode: (n, size, size, 3) uint8 pictures to (n, dim) unit vectors.
        train, held_out: Rows of `pairs`.
    """
    pictures, sound = _sound_and_damaged(train, size)
    head = fit_head(encode(pictures), np.where(sound, SOUND, DAMAGED))
    pictures, sound = _sound_and_damaged(held_out, size)
    points = head(encode(pictures))
    return head, {"aesthetic_auc": round(auc(points[sound], points[~sound]), 4), "aesthetic_frames": len(points)}


def _sound_and_damaged(rows: list[dict[str, Any]], size: int) -> tuple[np.ndarray, np.ndarray]:
    """The middle frame of each pair as it is and with a defect, and which is which."""
    import cv2

    pictures, sound = [], []
    for i, row in enumerate(rows[:_MOST_PAIRS]):
        frame = read_jpeg(row["frames"][len(row["frames"]) // 2])
        damaged = damage_picture(frame.copy(), _DAMAGE[i % len(_DAMAGE)], i, 0)
        for picture in (frame, damaged):
            pictures.append(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA))
        sound += [True, False]
    return np.stack(pictures), np.array(sound)
