"""The video diffusion transformer over packs of tokens of any shape.

    tokens -> linear -> [block] x depth -> modulated norm -> linear -> velocity per token

Conditioning per sample: noise level (sinusoid, MLP) plus the mean of its text features; the text itself comes
in by cross-attention.  The head starts at zero, so the first prediction is zero velocity.

Legend: L tokens of the pack, S samples, R = 2 S rows (a sample's own t, then t = 0 for its given tokens), D width.
Source: DiT, arXiv:2212.09748.
"""

import dataclasses
import math
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional

from trainer.model.attention import segments
from trainer.model.block import Block
from trainer.model.config import SIZES, ModelConfig
from trainer.model.local import boxes
from trainer.model.rope import angles
from trainer.model.text import text_encoder

_T_FEATURES = 256


@dataclasses.dataclass(frozen=True)
class Pack:
    """Samples as the model sees them, one after the other."""

    x: torch.Tensor
    """(L, channels) noised tokens; given ones clean."""
    positions: torch.Tensor
    """(L, 3): seconds, row, column."""
    given: torch.Tensor
    """(L,) bool."""
    lengths: tuple[int, ...]
    """Tokens of each sample."""
    t: torch.Tensor
    """(S,) float32 noise levels."""
    texts: tuple[str, ...]
    """Captions; empty where it was dropped."""


def noise_features(t: torch.Tensor) -> torch.Tensor:
    """Sinusoids of the noise level, (R, 256), in float32: t counts in thousandths, as in DiT."""
    half = _T_FEATURES // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    phase = 1000.0 * t.float()[:, None] * frequencies
    return torch.cat([phase.cos(), phase.sin()], dim=1)


def sample_index(lengths: Sequence[int], device: torch.device | str) -> torch.Tensor:
    """Which sample each token belongs to."""
    return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(device)


class DiT(nn.Module):
    """Packs to velocities."""

    variance: torch.Tensor
    """(channels,) that of the latents, where the model corrects a linear guess; ones until it is measured."""

    def __init__(self, config: ModelConfig, token_channels: int, tokenizer: Tokenizer | None) -> None:
        super().__init__()
        depth, width, heads = SIZES[config.size]
        self.config, self.token_channels, self._head_dim = config, token_channels, width // heads
        self.text = text_encoder(config.text, tokenizer)
        self.embed = nn.Linear(token_channels, width)
        self.noise = nn.Sequential(nn.Linear(_T_FEATURES, width), nn.SiLU(), nn.Linear(width, width))
        self.pooled = nn.Linear(self.text.width, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, self.text.width, config.mlp_ratio, config.local) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, token_channels)
        for layer in (self.modulation, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        if config.linear_guess:
            self.register_buffer("variance", torch.ones(token_channels))

    def forward(self, pack: Pack) -> torch.Tensor:
        """Velocity of every token, (L, token_channels)."""
        device = pack.x.device
        text, text_lengths = self.text(pack.texts)
        text = text.to(device)  # a frozen encoder stays where it is
        own = segments(pack.lengths, pack.lengths, device)
        to_text = segments(pack.lengths, text_lengths, device)
        rotation = angles(pack.positions, self._head_dim, self.config.rope_theta, self.config.rope_per_second)
        positions = (rotation.cos(), rotation.sin())
        levels = torch.cat([pack.t, torch.zeros_like(pack.t)])
        condition = self.noise(noise_features(levels)) + self.pooled(_means(text, text_lengths)).repeat(2, 1)
        row = sample_index(pack.lengths, device) + pack.given.long() * len(pack.lengths)
        around = boxes(pack.positions, pack.lengths) if self.config.local else None
        x = self.embed(pack.x)
        for block in self.blocks:
            x = block(x, condition, row, text, own, to_text, positions, around)
        shift, scale = self.modulation(functional.silu(condition)).index_select(0, row).chunk(2, dim=-1)
        velocity = self.head(self.norm(x) * (1 + scale) + shift)
        if not self.config.linear_guess:
            return velocity
        return beside_linear_guess(velocity, pack.x, levels.index_select(0, row)[:, None], self.variance)


def beside_linear_guess(
    rest: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, variance: torch.Tensor | float = 1.0
) -> torch.Tensor:
    """The velocity whose deviation from the best linear guess is `rest`, in units of that deviation.

    For data of variance s and noise of variance 1 cov(v, x_t) = t - (1 - t) s and var(x_t) = d = (1 - t)^2 s + t^2, so
    the guess is (t - (1 - t) s) / d x_t and misses by a variance of s / d.  Source: EDM, arXiv:2206.00364, section 5.

    Args:
        variance: That of each channel of the data, about a mean of 0.
    """
    d = (1 - t) ** 2 * variance + t**2
    return (t - (1 - t) * variance) / d * x_t + rest * (variance / d) ** 0.5


def _means(packed: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Mean over each sample's rows; one sum per sample, so that a neighbour cannot change its rounding."""
    return torch.stack([part.mean(0) for part in packed.split(list(lengths))])


def num_parameters(model: nn.Module) -> int:
    """Trained numbers."""
    return sum(p.numel() for p in model.parameters())
