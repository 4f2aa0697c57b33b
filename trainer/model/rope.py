"""Rotary positions over (time, height, width), so that one model holds every shape.

Time is real time in seconds, so a clip at 4 frames per second and one at 24 are on the same axis; height and
width are token indices.  The head is split between the three axes; each part is rotated by its own coordinate.
Only differences of positions enter attention.

Sources: RoFormer, arXiv:2104.09864; 3-D split as in HunyuanVideo and Wan; seconds as in LTX-Video, arXiv:2501.00103.
"""

import numpy as np
import torch

from trainer.shapes import Compression, TokenGrid


def split(head_dim: int) -> tuple[int, int, int]:
    """Parts of a head for time, height and width: a quarter for time, the rest shared; each even."""
    time = head_dim // 8 * 2
    height = (head_dim - time) // 4 * 2
    return time, height, head_dim - time - height


def coordinates(
    grid: TokenGrid, seconds_per_frame: float, compression: Compression, places: np.ndarray | None = None
) -> np.ndarray:
    """Coordinates of a sample's tokens, (tokens, 3): seconds, row, column.

    A latent cell covers `compression.time` frames; its time is that of its last frame.

    Args:
        places: Place of each latent frame on the time axis, where that is not its number.
    """
    steps = np.arange(grid.frames) if places is None else places
    times = steps.astype(np.float32) * np.float32(compression.time * seconds_per_frame)
    rows = np.arange(grid.height, dtype=np.float32)
    columns = np.arange(grid.width, dtype=np.float32)
    mesh = np.meshgrid(times, rows, columns, indexing="ij")
    return np.stack([m.reshape(-1) for m in mesh], axis=1)


def angles(coordinates_L3: torch.Tensor, head_dim: int, theta: float, per_second: float) -> torch.Tensor:
    """Rotation angles, (tokens, head_dim / 2).

    Args:
        theta: Longest wavelength is about 2 pi theta positions.
        per_second: Positions that one second counts for.
    """
    parts = []
    for axis, (width, scale) in enumerate(zip(split(head_dim), (per_second, 1.0, 1.0))):
        steps = torch.arange(0, width, 2, dtype=torch.float32, device=coordinates_L3.device) / max(width, 1)
        parts.append(coordinates_L3[:, axis : axis + 1] * scale * theta**-steps)
    return torch.cat(parts, dim=1)


def rotate(x_LNK: torch.Tensor, cos_LK: torch.Tensor, sin_LK: torch.Tensor) -> torch.Tensor:
    """Rotate each pair of a head's numbers by its angle."""
    a, b = x_LNK.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos_LK.unsqueeze(1), sin_LK.unsqueeze(1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)
