"""How good a reconstruction is: PSNR and SSIM, and a picture to look at.

Both are of uint8 pictures; a video's number is that of all its frames together (PSNR of the mean squared error, mean
SSIM), and a set's number is the mean over its videos.

Source: SSIM, Wang et al. 2004 (Gaussian window of 11, sigma 1.5, K 0.01 and 0.03), on luma.
"""

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from trainer.autoencoder.model import decode, encode, psnr

_SHEET_BYTES = 120_000
_LUMA = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class Quality:
    """What comes back of some clips."""

    psnr: float
    """Mean over clips, dB."""
    ssim: float
    """Mean over clips, at most 1."""
    psnr_first_frame: float
    """The same of the first frames, each sent through alone as a picture, dB."""
    sheet: bytes
    """JPEG: pairs of rows, original above and reconstruction below; first, middle and last frame of some clips."""


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of two videos (time, height, width, 3) uint8, on luma, mean over frames and places."""
    place = torch.arange(11, dtype=torch.float64) - 5
    window = torch.exp(-(place**2) / (2 * 1.5**2))
    kernel = torch.outer(window, window)[None, None] / window.sum() ** 2

    def blurred(x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, kernel)

    x, y = (torch.from_numpy(v.astype(np.float64) @ np.array(_LUMA))[:, None] for v in (a, b))
    mean_x, mean_y = blurred(x), blurred(y)
    var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    both = blurred(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(
        ((2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean()
    )


def measure(model: Any, clips: Sequence[np.ndarray], shown: int = 8) -> Quality | None:
    """Send clips through and compare; None without clips."""
    if not clips:
        return None
    backs = [decode(model, encode(model, c)[None])[0] for c in clips]
    first = [psnr(c[:1], decode(model, encode(model, c[:1])[None])[0]) for c in clips]
    pairs = list(zip(clips, backs))
    return Quality(
        psnr=float(np.mean([psnr(a, b) for a, b in pairs])),
        ssim=float(np.mean([ssim(a, b) for a, b in pairs])),
        psnr_first_frame=float(np.mean(first)),
        sheet=sheet(pairs[:shown]),
    )


def sheet(pairs: Sequence[tuple[np.ndarray, np.ndarray]], columns: int = 2, scale: int = 2) -> bytes:
    """Originals above their reconstructions, enlarged, as a JPEG of at most 120 kB."""
    tiles = []
    for pair in pairs:
        rows = [np.concatenate([v[0], v[len(v) // 2], v[-1]], axis=1) for v in pair]
        tile = Image.fromarray(np.concatenate(rows))
        tiles.append(tile.resize((tile.width * scale, tile.height * scale), Image.Resampling.NEAREST))
    width, height = max(t.width for t in tiles) + 6, max(t.height for t in tiles) + 6
    page = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), "white")
    for i, tile in enumerate(tiles):
        page.paste(tile, (i % columns * width, i // columns * height))
    for quality in range(92, 10, -10):
        buffer = io.BytesIO()
        page.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= _SHEET_BYTES:
            break
    return buffer.getvalue()
