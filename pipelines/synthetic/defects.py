"""Planted defects: what is wrong with a shot's pictures, or with a file's bytes.

`static` and `near_duplicate` are choices of scene, `freeze` one of time; they are made in `edit`.
"""

import numpy as np

from pipelines.synthetic.render import Frame
from pipelines.synthetic.world import generator

SHOT_DEFECTS = (
    "blur", "dark", "freeze", "letterbox", "flicker", "text", "watermark", "static", "near_duplicate"
)  # fmt: skip
FILE_DEFECTS = ("duplicate", "corrupt")
BLUR = 0.04
"""Standard deviation of the blur, in short sides."""
DARK = 0.1
"""Share of the light that is left."""
BAR = 0.13
"""Height of each black bar, in short sides."""
FLICKER = 0.3
"""How far the gain swings from frame to frame."""
_WORDS = (
    "what do you see",
    "we have to go now",
    "it was here before",
    "look over there",
    "nobody told me",
    "wait for it",
)


def damage_picture(frame: Frame, defect: str, seed: int, j: int) -> Frame:
    """Give frame j of a shot the shot's defect; the seed chooses among its forms."""
    import cv2

    height, width = frame.shape[:2]
    if defect == "blur":
        return cv2.GaussianBlur(frame, (0, 0), BLUR * min(height, width))  # type: ignore[return-value]
    if defect == "dark":
        return cv2.convertScaleAbs(frame, alpha=DARK)  # type: ignore[return-value]
    if defect == "flicker":
        swing = FLICKER * generator("flicker", seed, j).uniform(0.6, 1.0)
        return cv2.convertScaleAbs(frame, alpha=1 + (swing if j % 2 else -swing))  # type: ignore[return-value]
    if defect == "letterbox":
        bar = 2 * round(BAR * min(height, width) / 2)
        if height <= width:
            frame[:bar], frame[height - bar :] = 0, 0
        else:
            frame[:, :bar], frame[:, width - bar :] = 0, 0
    if defect == "text":
        _subtitle(frame, _WORDS[seed % len(_WORDS)], seed)
    if defect == "watermark":
        _logo(frame, seed)
    return frame


def _subtitle(frame: Frame, words: str, seed: int) -> None:
    """Two lines of white text with a black edge, in the lower part of the picture."""
    import cv2

    height, width = frame.shape[:2]
    font = cv2.FONT_HERSHEY_DUPLEX
    halves = words.split(" ")
    lines = (" ".join(halves[: len(halves) // 2]), " ".join(halves[len(halves) // 2 :]))
    widest = max(cv2.getTextSize(line, font, 1.0, 1)[0][0] for line in lines)
    size = min(0.86 * width / widest, 0.11 * min(height, width) / 21)
    for row, line in enumerate(reversed(lines)):
        wide = cv2.getTextSize(line, font, size, 1)[0][0]
        at = (int((width - wide) / 2), int(height - (0.05 + 0.15 * row) * min(height, width)))
        cv2.putText(frame, line, at, font, size, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(frame, line, at, font, size, (255, 255, 255), 1, cv2.LINE_AA)


def _logo(frame: Frame, seed: int) -> None:
    """A half-transparent badge in one of the corners."""
    import cv2

    height, width = frame.shape[:2]
    side = round(0.2 * min(height, width))
    margin = round(0.05 * min(height, width))
    x = margin if seed % 2 else width - margin - side
    y = margin if seed // 2 % 2 else height - margin - side
    region = frame[y : y + side, x : x + side]
    badge = region.copy()
    middle = (side // 2, side // 2)
    cv2.circle(badge, middle, round(0.46 * side), (255, 255, 255), max(1, side // 10), cv2.LINE_AA)
    cv2.circle(badge, middle, round(0.3 * side), (20, 20, 20), -1, cv2.LINE_AA)
    at = (round(0.24 * side), round(0.62 * side))
    cv2.putText(badge, "TV", at, cv2.FONT_HERSHEY_DUPLEX, side / 60, (255, 255, 255), 1, cv2.LINE_AA)
    region[:] = cv2.addWeighted(region, 0.3, badge, 0.7, 0)


def damage_bytes(data: bytes, seed: int) -> bytes:
    """Overwrite about a twentieth of a file, just past its middle; what is before and after stays."""
    rng = generator("corrupt", seed)
    start = int(len(data) * rng.uniform(0.5, 0.6))
    length = max(64, len(data) // 20)
    noise = np.asarray(rng.integers(0, 256, length), dtype=np.uint8).tobytes()
    return data[:start] + noise[: len(data) - start] + data[start + length :]
