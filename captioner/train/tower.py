"""Frames of any aspect ratio to what can be said of them: motion measured, subjects found, then looked at.

    every other frame, its silhouettes and the flow (no weights), at half size -> 2-D convolutions -> cells of 4 pixels
    cells -> subjects searched for one after the other (glimpse.py) -> a patch around each -> how it looks
    where each subject is at every moment, flow there, what the camera does -> what it does first, and last
    cells, pooled to 8 pixels, and the flow of nine regions -> learned queries -> camera, background, free slots
    all subjects together -> how many, and how they stand to each other

Motion is built in, not hoped for.  Frame-wise features stayed at chance on motion and camera in trials, and a
plain Conv3d stem needs hundreds of steps to find them (facts/captioner.md 6.4; docs/log.md); Lucas and Kanade's
least squares over 5 x 5 windows give them from the first step, and places at four moments say it again for what
moves too fast for them.

Letters: B clips, T frames, t moments, H and W pixels, N cells, D width, K subjects.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from captioner.train.config import ModelConfig
from captioner.train.glimpse import CELL, GROUPS, Glimpse, Search, middle_of, strangeness

_WINDOW = 5  # pixels at half size over which motion is taken as one
_FLAT = 2e-4  # added to the squared gradients, which sensor noise alone makes about 1e-4: flat places do not move
_FARTHEST = 2.0  # pixels at half size; beyond it the linearisation is meaningless
_SHORT = 40.0  # flow is seen as in a picture of this short side
_REGIONS = 3  # along each side of the picture; the flow of each is its own
_SCENE_QUERIES = 4


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


def positions(h: int, w: int, width: int) -> Tensor:
    """Sinusoidal embedding of each cell's place in any grid, (h * w, width); places are counted from the middle."""
    rate = 3 * torch.exp(torch.arange(width // 4) * (-math.log(12.0) / max(1, width // 4 - 1)))
    parts = []
    for place in middle_of(h, w):
        angle = place[:, None] * rate
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=1)


def convolution(before: int, after: int, side: int = 3, *, stride: int = 1, dilation: int = 1) -> nn.Module:
    """A normalised convolution."""
    padding = side // 2 * dilation
    return nn.Sequential(
        nn.Conv2d(before, after, side, stride, padding, dilation, bias=False), nn.GroupNorm(GROUPS, after), nn.ReLU()
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What the tower makes of clips; each feature is (B, ..., D)."""

    looks: Tensor
    """Of each subject (B, K, D): what it is."""
    begins: Tensor
    """Of each subject (B, K, D): what it does first."""
    ends: Tensor
    """Of each subject (B, K, D): what it does last."""
    together: Tensor
    """How many there are and how they stand to each other."""
    scene: Tensor
    """Camera and background."""
    free: Tensor
    """Free slots (B, F, D)."""
    log_where: Tensor
    """See `glimpse.Found`; (B, K, t, N)."""


class Tower(nn.Module):
    """uint8 frames (B, T, H, W, 3) to `Seen`."""

    def __init__(self, config: ModelConfig, subjects: int) -> None:
        super().__init__()
        width, (first, second) = config.width, config.stem
        self.moments = config.time_cells
        self.stem = nn.Sequential(
            convolution(6, first, 5, stride=2), convolution(first, second), convolution(second, second, dilation=2)
        )
        self.search, self.glimpse = Search(config, subjects), Glimpse(config)
        self.queries = nn.Parameter(torch.randn(_SCENE_QUERIES + config.free_slots, width) * 0.3)
        self.to_cell, self.to_key, self.to_value = (
            nn.Linear(second, width),
            nn.Linear(width, width),
            nn.Linear(width, width),
        )
        self.regions = nn.Sequential(nn.Linear(4 * _REGIONS**2, width), nn.ReLU(), nn.Linear(width, width))
        self.scene = nn.Sequential(
            nn.LayerNorm(_SCENE_QUERIES * width),
            nn.Linear(_SCENE_QUERIES * width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, width),
        )
        self.motion = nn.Sequential(
            nn.Linear(4 * self.moments + 2 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, 2 * width)
        )
        self.together = nn.Sequential(
            nn.Linear(subjects * (width + 2 * self.moments), 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, frames: Tensor) -> Seen:
        b, t, k = len(frames), self.moments, len(self.search.queries)
        video = frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
        with torch.no_grad():
            moved, regions = self._measure(video)
        moments = video[:, :, :: video.shape[2] // t].transpose(1, 2)
        half = F.avg_pool2d(moments.flatten(0, 1), 2)
        strange = strangeness(half)
        x = torch.cat([half, strange, moved.transpose(1, 2).flatten(0, 1)], dim=1)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        h, w = x.shape[2:]
        hint = F.avg_pool2d(strange, CELL // 2).flatten(1)
        hint = (hint / hint.amax(dim=1, keepdim=True).clamp(min=1e-6)).view(b, t, -1)
        felt = F.avg_pool2d(moved.transpose(1, 2).flatten(0, 1), CELL // 2).flatten(2).transpose(1, 2).view(b, t, -1, 2)
        cells = x.flatten(2).transpose(1, 2).view(b, t, h * w, -1)
        found = self.search(cells, hint, felt, positions(h, w, self.queries.shape[1]), h, w)
        looks = found.content + self.glimpse(moments, found.places)
        slots = self._read(F.avg_pool2d(x, 2).flatten(2).transpose(1, 2).reshape(b, -1, x.shape[1]))
        scene = self.scene(slots[:, :_SCENE_QUERIES].flatten(1)) + self.regions(regions)
        track = [found.places.flatten(2), found.felt.flatten(2)]
        begins, ends = self.motion(torch.cat([*track, scene[:, None].expand(-1, k, -1), looks], dim=-1)).chunk(
            2, dim=-1
        )
        together = self.together(torch.cat([looks.flatten(1), found.places.flatten(1)], dim=1))
        return Seen(looks, begins, ends, together, scene, slots[:, _SCENE_QUERIES:], found.log_where)

    def _measure(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Flow of each moment (B, 2, t, H/2, W/2), and that of nine regions in the clip's two halves (B, 36)."""
        b = len(video)
        moved = flow(video) * (_SHORT / min(video.shape[3:]))
        moved = F.avg_pool3d(moved, (moved.shape[2] // self.moments, 1, 1))
        regions = F.adaptive_avg_pool2d(moved.flatten(0, 1), _REGIONS).view(b, 2, self.moments, -1)
        halves = [half.mean(dim=2).flatten(1) for half in regions.chunk(2, dim=2)]
        return moved, torch.cat(halves, dim=1)

    def _read(self, pooled_BNC: Tensor) -> Tensor:
        """What the scene's queries and the free ones read."""
        cells = self.to_cell(pooled_BNC)
        match = self.queries @ self.to_key(cells).transpose(1, 2) * cells.shape[-1] ** -0.5
        return match.softmax(dim=-1) @ self.to_value(cells)
