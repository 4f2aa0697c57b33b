"""Frames of any aspect ratio to slots: motion measured, appearance learned, tokens never pooled before they are read.

    RGB of every other frame -> 2-D convolutions to 1/4 --+
    flow between all frames (no weights) -----------------+-> 3-D convolution to 1/8, residual blocks -> tokens
    tokens + (t, h, w) positions -> one attention block -> learned queries read them -> slots
    where a subject's query looks -> a closer look (glimpse.py) -> added to its slot

Motion is built in, not hoped for.  Frame-wise features stayed at chance on motion and camera in trials, and a
plain Conv3d stem needs hundreds of steps to find them (facts/captioner.md 6.4; docs/log.md); Lucas and Kanade's
least squares over 5 x 5 windows give them from the first step: two channels that say how far each place moved.

Letters: B clips, T frames, H and W pixels, N tokens, D width, S slots.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from captioner.train.config import ModelConfig
from captioner.train.glimpse import Glimpse, salience

_WINDOW = 5  # pixels at half size over which motion is taken as one
_FLAT = 2e-4  # added to the squared gradients, which sensor noise alone makes about 1e-4: flat places do not move
_FARTHEST = 2.0  # pixels at half size; beyond it the linearisation is meaningless
_RESIDUAL_BLOCKS = 2
_SALIENCE = 8.0  # initial weight of the hint where subjects are: e**8 between the most and the least salient cell


def flow(video_BCTHW: Tensor) -> Tensor:
    """Motion of every place between neighbouring frames, averaged over pairs: (B, 2, T/2, H/2, W/2), in half pixels.

    Ref: Lucas and Kanade 1981, with a ridge so that flat places come out as still.
    """
    b, _, t, h, w = video_BCTHW.shape
    luma = F.avg_pool2d(video_BCTHW.mean(dim=1).reshape(b * t, 1, h, w), 2).view(b, t, h // 2, w // 2)
    middle, change = (luma[:, 1:] + luma[:, :-1]) / 2, luma[:, 1:] - luma[:, :-1]
    padded = F.pad(middle, (1, 1, 1, 1), mode="replicate")
    across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    sums = torch.stack([across**2, across * down, down**2, across * change, down * change], dim=1).flatten(1, 2)
    sums = F.avg_pool2d(sums, _WINDOW, 1, _WINDOW // 2, count_include_pad=False)
    xx, xy, yy, xt, yt = sums.view(b, 5, t - 1, h // 2, w // 2).unbind(dim=1)
    xx, yy = xx + _FLAT, yy + _FLAT
    scale = xx * yy - xy * xy
    moved = torch.stack([(xy * yt - yy * xt) / scale, (xy * xt - xx * yt) / scale], dim=1)
    moved = moved.clamp(-_FARTHEST, _FARTHEST)
    moved = torch.cat([moved, moved[:, :, -1:]], dim=2)  # the last frame has no next one
    return F.avg_pool3d(moved, (2, 1, 1))


def positions(grid: Sequence[int], width: int) -> Tensor:
    """Sinusoidal (t, h, w) positions for any grid, (tokens, width); places are counted from the centre."""
    share = width // 6 * 2
    axes = []
    for cells, dims in zip(grid, (width - 2 * share, share, share)):
        place = torch.arange(cells, dtype=torch.float32) - (cells - 1) / 2
        rate = torch.exp(torch.arange(dims // 2) * (-math.log(50.0) / max(1, dims // 2 - 1)))
        angle = place[:, None] * rate[None]
        axes.append(F.pad(torch.cat([angle.sin(), angle.cos()], dim=1), (0, dims % 2)))
    t, h, w = (int(c) for c in grid)
    parts = (
        axes[0][:, None, None].expand(t, h, w, -1),
        axes[1][None, :, None].expand(t, h, w, -1),
        axes[2][None, None].expand(t, h, w, -1),
    )
    return torch.cat(parts, dim=-1).reshape(t * h * w, width)


class Attend(nn.Module):
    """Pre-norm attention of queries over a memory, then an MLP; self-attention when they are the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_q, self.norm_m, self.norm_f = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, q_BSD: Tensor, m_BND: Tensor, hint_BSN: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What was read, and how much each query looked where (mean over heads, (B, S, N))."""
        b, s, d = q_BSD.shape
        q = self.query(self.norm_q(q_BSD)).view(b, s, self.heads, -1).transpose(1, 2)
        key, value = self.key_value(self.norm_m(m_BND)).chunk(2, dim=-1)
        key, value = (x.view(b, -1, self.heads, d // self.heads).transpose(1, 2) for x in (key, value))
        match = q @ key.transpose(-1, -2) * (d // self.heads) ** -0.5
        weights = (match if hint_BSN is None else match + hint_BSN[:, None]).softmax(dim=-1)
        q_BSD = q_BSD + self.out((weights @ value).transpose(1, 2).reshape(b, s, d))
        return q_BSD + self.feed(self.norm_f(q_BSD)), weights.mean(dim=1)


class Residual(nn.Module):
    """One normalised convolution beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(8, width), nn.Conv3d(width, width, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(F.relu(self.norm(x)))


class Stem(nn.Module):
    """(B, 3, T, H, W) in [-1, 1] to (B, D, T/4, H/8, W/8)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        first, second = config.stem
        self.to_half = nn.Conv3d(3, first, (1, 5, 5), stride=(1, 2, 2), padding=(0, 2, 2))
        self.norm_half = nn.GroupNorm(8, first)
        self.to_quarter = nn.Conv3d(first + 2, second, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.norm_quarter = nn.GroupNorm(8, second)
        self.to_eighth = nn.Conv3d(second, config.width, 3, stride=2, padding=1)
        self.deeper = nn.Sequential(*(Residual(config.width) for _ in range(_RESIDUAL_BLOCKS)))

    def forward(self, video: Tensor, moved: Tensor) -> Tensor:
        x = F.relu(self.norm_half(self.to_half(video[:, :, ::2])))
        x = F.relu(self.norm_quarter(self.to_quarter(torch.cat([x, moved], dim=1))))
        return self.deeper(self.to_eighth(x))


class Tower(nn.Module):
    """uint8 frames (B, T, H, W, 3) to slots (B, S, D); the first slots are the subjects'."""

    def __init__(self, config: ModelConfig, num_slots: int, num_subjects: int) -> None:
        super().__init__()
        self.num_subjects = num_subjects
        self.stem = Stem(config)
        self.norm = nn.LayerNorm(config.width)
        self.mix = Attend(config.width, config.heads)
        self.queries = nn.Parameter(torch.randn(num_slots, config.width) * 0.5)
        self.salience = nn.Parameter((torch.arange(num_slots) < num_subjects).float() * _SALIENCE)
        self.read = Attend(config.width, config.heads)
        self.glimpse = Glimpse(config, config.time_cells)

    def forward(self, frames: Tensor) -> Tensor:
        video = frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
        with torch.no_grad():
            moved = flow(video)
        x = self.stem(video, moved)
        grid = x.shape[2:]
        tokens = self.norm(x.flatten(2).transpose(1, 2)) + positions(grid, x.shape[1])
        tokens, _ = self.mix(tokens, tokens)
        hint = self.salience[None, :, None] * salience(video, grid)[:, None]
        slots, looked = self.read(self.queries.expand(len(tokens), -1, -1), tokens, hint)
        subjects, others = slots[:, : self.num_subjects], slots[:, self.num_subjects :]
        closer = self.glimpse(video, moved, looked[:, : self.num_subjects], grid)
        return torch.cat([subjects + closer, others], dim=1)
