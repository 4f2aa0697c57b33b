"""Neighbours of a token: a depthwise 3 x 3 x 3 convolution over each sample's latent frames, rows and columns.

Attention can find neighbours, but has to learn to, and a small model spends most of a short run on it: what it draws
until then falls apart at the edges of its tokens (docs/log.md, 2026-11-26).  A convolution has them from the first
step, and its zeros around the video say where the edges are.  Samples of one shape run as one call, so a pack costs
no padding, and no sample sees another.  Chains of a layout lie one after the other on its time axis, as its tokens do.

Legend: L tokens, D width, n samples of T frames of H x W tokens.
Source: conditional positional encoding, arXiv:2102.10882; depthwise convolutions in DiT blocks: SANA, arXiv:2410.10629.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from trainer.model.attention import samples_alike


@dataclasses.dataclass(frozen=True, slots=True)
class Boxes:
    """A pack's samples, grouped by frames, height and width in tokens."""

    groups: tuple[tuple[tuple[int, int, int], torch.Tensor], ...]
    """((T, H, W), positions in the pack of all samples of that shape, one after the other)."""
    restore: torch.Tensor
    """Positions that put the groups, one after the other, back into pack order."""


def boxes(positions_L3: torch.Tensor, lengths: Sequence[int]) -> Boxes:
    """The samples of a pack, from the coordinates of its tokens (seconds, row, column), which each counts from 0.

    Raises:
        ValueError: If a sample is not made of whole frames.
    """
    ends = torch.stack([part[:, 1:].amax(dim=0) for part in positions_L3.split(list(lengths))])
    shapes = []
    for (rows, columns), length in zip((ends.long() + 1).tolist(), lengths):
        if length % (rows * columns):
            raise ValueError(f"a sample of {length} tokens is not made of frames of {rows} x {columns}")
        shapes.append((length // (rows * columns), rows, columns))
    alike, restore = samples_alike(shapes, lengths)
    device = positions_L3.device
    return Boxes(
        tuple((shape, torch.from_numpy(at).flatten().to(device)) for shape, (_, at) in alike.items()),
        torch.from_numpy(restore).to(device),
    )


class Local(nn.Module):
    """What a block adds to its tokens of those beside them, before and after."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.conv = nn.Conv3d(width, width, 3, padding=1, groups=width)
        with torch.no_grad():
            self.conv.weight.mul_(0.5)  # a block begins near the identity
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.beside = beside

    def forward(self, x_LD: torch.Tensor, where: Boxes) -> torch.Tensor:
        return self.beside(self.norm(x_LD), self.conv.weight, self.conv.bias, where)


def beside(x_LD: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, where: Boxes) -> torch.Tensor:
    """The convolution, group by group; each tap in time is a 2-D one, as depthwise in three is slow on a CPU."""
    outputs = []
    for (frames, height, width), at in where.groups:
        x = x_LD.index_select(0, at).unflatten(0, (-1, frames, height, width))
        made = _pictures(x, weight[:, :, 1], bias)
        if frames > 1:
            before, after = _pictures(x[:, :-1], weight[:, :, 0]), _pictures(x[:, 1:], weight[:, :, 2])
            none = torch.zeros_like(made[:, :1])
            made = made + torch.cat([none, before], dim=1) + torch.cat([after, none], dim=1)
        outputs.append(made.flatten(0, 3))
    return torch.cat(outputs).index_select(0, where.restore)


def _pictures(x_nTHWD: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Every frame on its own."""
    frames = x_nTHWD.flatten(0, 1).permute(0, 3, 1, 2)
    made = functional.conv2d(frames, weight, bias, padding=1, groups=len(weight))
    return made.permute(0, 2, 3, 1).unflatten(0, x_nTHWD.shape[:2])
