"""Where the subjects are, and a closer look there: what makes small shapes learnable in minutes.

A network that must first find a subject before it can tell its shape learns neither for hundreds of steps (measured:
docs/log.md).  So the subjects' slots are given a hint of where to look, how far each place differs from its
frame's mean colour, as a bias that the attention can outweigh; and where a slot looks, a patch is cut from the
frames (and from the measured flow) and read by a small 2-D network, always centred on the subject.

Refs: Mnih et al. 2014 (recurrent attention), Jaderberg et al. 2015 (spatial transformers).

Letters: B clips, K subjects, T frames, t time cells, H and W pixels, h and w cells, C channels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from captioner.train.config import ModelConfig


def middles(frames: int, time_cells: int) -> list[int]:
    """The frame in the middle of each time cell."""
    return [(2 * i + 1) * frames // (2 * time_cells) for i in range(time_cells)]


@torch.no_grad()
def strangeness(video_BCTHW: Tensor) -> Tensor:
    """How far each pixel is from its frame's mean colour, (B, 1, T, H, W): a silhouette, whatever the colours."""
    mean = video_BCTHW.mean(dim=(3, 4), keepdim=True)
    return (video_BCTHW - mean).square().sum(dim=1, keepdim=True).sqrt()


@torch.no_grad()
def salience(video_BCTHW: Tensor, grid: Sequence[int]) -> Tensor:
    """Strangeness of each cell in the middle frame of its time cell, 1 for the strangest there; (B, t * h * w)."""
    t, h, w = (int(c) for c in grid)
    far = strangeness(video_BCTHW[:, :, middles(video_BCTHW.shape[2], t)])
    cells = F.avg_pool3d(far, (1, far.shape[3] // h, far.shape[4] // w)).reshape(len(far), t, h * w)
    return (cells / cells.amax(dim=-1, keepdim=True).clamp(min=1e-6)).flatten(1)


def centres(weights_BKN: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Where weights over cells lie, as (x, y) in [-1, 1], each (B, K, t).  Squared first, which sharpens."""
    t, h, w = (int(c) for c in grid)
    p = weights_BKN.unflatten(2, (t, h * w)).square() + 1e-12
    p = p / p.sum(dim=-1, keepdim=True)
    down = ((torch.arange(h) + 0.5) / h * 2 - 1).repeat_interleave(w)
    across = ((torch.arange(w) + 0.5) / w * 2 - 1).repeat(h)
    return (p * across).sum(dim=-1), (p * down).sum(dim=-1)


def patches(picture_BCtHW: Tensor, x_BKt: Tensor, y_BKt: Tensor, *, side: int, reach: Tensor) -> Tensor:
    """Square patches of `side` samples around places, (B * K * t, C, side, side).

    Args:
        reach: Half a patch's extent across and down, in units of half the picture.
    """
    b, k, t = x_BKt.shape
    steps = torch.linspace(-1, 1, side)
    across = x_BKt[..., None, None] + (steps * reach[0])[None, None, None, None, :]
    down = y_BKt[..., None, None] + (steps * reach[1])[None, None, None, :, None]
    where = torch.stack([across.expand(b, k, t, side, side), down.expand(b, k, t, side, side)], dim=-1)
    whole = picture_BCtHW.transpose(1, 2)[:, None].expand(-1, k, -1, -1, -1, -1).flatten(0, 2)
    return F.grid_sample(whole, where.flatten(0, 2), align_corners=False)


class Glimpse(nn.Module):
    """A closer look at where each subject is, at every time cell: (B, K, D)."""

    def __init__(self, config: ModelConfig, time_cells: int) -> None:
        super().__init__()
        self.side, self.reach = config.glimpse_side, config.glimpse_reach
        first, second = config.glimpse
        self.look = nn.Sequential(
            nn.Conv2d(6, first, 5, stride=2, padding=2),
            nn.GroupNorm(8, first),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, padding=1),
            nn.GroupNorm(8, second),
            nn.ReLU(),
            nn.Conv2d(second, second, 3, stride=2, padding=1),
            nn.GroupNorm(8, second),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(second * (self.side // 4) ** 2, config.width),
        )
        self.over_time = nn.Sequential(  # in order, and not linear: two events are a difference between cells
            nn.ReLU(),
            nn.Linear(config.width * time_cells, 2 * config.width),
            nn.ReLU(),
            nn.Linear(2 * config.width, config.width),
        )

    def forward(self, video: Tensor, moved: Tensor, weights_BKN: Tensor, grid: Sequence[int]) -> Tensor:
        x, y = centres(weights_BKN, grid)
        b, k, t = x.shape
        frames, height, width = video.shape[2:]
        middle = video[:, :, middles(frames, t)]
        reach = torch.tensor([2 * self.reach / width, 2 * self.reach / height])
        seen = patches(torch.cat([middle, strangeness(middle)], dim=1), x, y, side=self.side, reach=reach)
        flows = F.avg_pool3d(moved, (moved.shape[2] // t, 1, 1))
        felt = patches(flows, x, y, side=self.side, reach=reach)
        looks = self.look(torch.cat([seen, felt], dim=1)).view(b, k, t, -1)
        return looks.mean(dim=2) + self.over_time(looks.flatten(2))  # what stays, and what changes
