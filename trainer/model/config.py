"""The transformer's settings and sizes: S to XL are the DiT paper's (arXiv:2212.09748), the rest for CPUs."""

import dataclasses

from schemas.ids import CHANGED_ONLY

SIZES = {  # depth, width, heads
    "nano": (2, 32, 2),
    "tiny": (4, 96, 3),
    "mini": (6, 128, 4),
    "small": (6, 192, 6),
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """The text encoder."""

    pretrained: str | None = None
    """transformers name or path of a frozen text encoder; None trains our own."""
    vocabulary: int = 512
    """Entries of the byte-level BPE, at least 257."""
    max_tokens: int = 96
    """Longest text in tokens; longer ones are cut. Wan uses 512 with umT5."""
    width: int = 96
    """Width of our own encoder."""
    layers: int = 1
    """Transformer layers of our own encoder; 0 is a bag of words with positions."""
    heads: int = 3
    """Heads of our own encoder."""

    def __post_init__(self) -> None:
        if self.vocabulary < 257 or self.max_tokens < 2 or self.width % self.heads:
            raise ValueError("text: vocabulary >= 257, max_tokens >= 2 and a width divisible by heads are needed")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The transformer."""

    size: str = "tiny"
    """nano, tiny, mini, small, or the DiT paper's S, B, L, XL: depth, width and heads."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over the model's width."""
    rope_theta: float = 100.0
    """Base of the rotary frequencies; small grids need short wavelengths (large models use 1e4)."""
    rope_per_second: float = 4.0
    """Rotary positions that one second of time counts for."""
    linear_guess: bool = False
    """Predict only what the best linear guess of the velocity leaves over, which has unit variance at every noise level
    (EDM's preconditioning): a narrow model then need not pass the noise through itself."""
    local: bool = dataclasses.field(default=False, metadata=CHANGED_ONLY)
    """Each block begins by adding a depthwise 3 x 3 x 3 convolution over its sample (`model/local.py`), so that
    attention need not find neighbours, which in small models and short runs is most of what there is to learn."""
    text: TextConfig = TextConfig()

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(SIZES)}, got `{self.size}`")
        if self.mlp_ratio <= 0 or self.rope_theta <= 1 or self.rope_per_second <= 0:
            raise ValueError("mlp_ratio > 0, rope_theta > 1 and rope_per_second > 0 are needed")
