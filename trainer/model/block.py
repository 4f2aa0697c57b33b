"""One DiT block: adaLN-Zero with one row per sample, QK-normed self-attention, cross-attention to text, MLP.

The modulation (shift, scale, gate) is computed once per sample and noise level, and each token takes its
sample's row by index, so a pack of many samples costs no more than one.  A sample has two rows: its own t for
generated tokens and t = 0 for given ones.  Gates start at zero: a fresh block is the identity.

Legend: L tokens, R rows, D width, N heads, K head width.
Source: DiT, arXiv:2212.09748; QK norm as in SD3, arXiv:2403.03206.
"""

import torch
from torch import nn
from torch.nn import functional

from trainer.model.attention import Segments, attention
from trainer.model.local import Boxes, Local
from trainer.model.rope import rotate


class Norm(nn.RMSNorm):
    """RMS norm in the dtype of its input: under autocast a float32 weight would keep it from the fused kernel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Multi-head attention with RMS-normed queries and keys."""

    def __init__(self, width: int, heads: int, key_width: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(key_width or width, 2 * width)
        self.out = nn.Linear(width, width)
        self.attend = attention
        self.norm_query = Norm(width // heads, eps=1e-6)
        self.norm_key = Norm(width // heads, eps=1e-6)

    def forward(
        self,
        x_LD: torch.Tensor,
        keys_MD: torch.Tensor,
        where: Segments,
        positions: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        q = self.norm_query(self.query(x_LD).unflatten(-1, (self.heads, -1)))
        k, v = self.key_value(keys_MD).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        k = self.norm_key(k)
        if positions is not None:
            q, k = rotate(q, *positions), rotate(k, *positions)
        return self.out(self.attend(q, k, v, where).flatten(-2))


class Mlp(nn.Module):
    """Linear, GELU (tanh form), linear."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        self.up = nn.Linear(width, int(width * ratio))
        self.down = nn.Linear(int(width * ratio), width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(functional.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    """Self-attention, cross-attention to text, MLP; the first and the last are modulated.  `local` adds neighbours."""

    def __init__(self, width: int, heads: int, text_width: int, mlp_ratio: float, local: bool = False) -> None:
        super().__init__()
        self.local = Local(width) if local else None
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.norm_attention = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(width, heads)
        self.norm_cross = nn.LayerNorm(width, eps=1e-6)
        self.cross = Attention(width, heads, key_width=text_width)
        nn.init.zeros_(self.cross.out.weight)  # as in PixArt-alpha, arXiv:2310.00426
        nn.init.zeros_(self.cross.out.bias)
        self.norm_mlp = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = Mlp(width, mlp_ratio)

    def forward(
        self,
        x_LD: torch.Tensor,
        condition_RD: torch.Tensor,
        row_L: torch.Tensor,
        text_MD: torch.Tensor,
        own: Segments,
        to_text: Segments,
        positions: tuple[torch.Tensor, torch.Tensor],
        around: Boxes | None = None,
    ) -> torch.Tensor:
        if self.local is not None and around is not None:
            x_LD = x_LD + self.local(x_LD, around)
        rows = self.modulation(functional.silu(condition_RD)).index_select(0, row_L)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = rows.chunk(6, dim=-1)
        h = self.norm_attention(x_LD) * (1 + scale_a) + shift_a
        x_LD = x_LD + gate_a * self.attention(h, h, own, positions)
        x_LD = x_LD + self.cross(self.norm_cross(x_LD), text_MD, to_text)
        h = self.norm_mlp(x_LD) * (1 + scale_m) + shift_m
        return x_LD + gate_m * self.mlp(h)
