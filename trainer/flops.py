"""Floating point operations of the transformer, counted exactly from the shapes: what MFU is a share of.

Every matrix product counts two operations per multiply-add; attention is counted per sample, as it is computed
(no sample attends to another), and padding never, because there is none.  Norms, activations and the text encoder are
left out, so that MFU errs to the low side.  A training step is three forward passes: one forward, two backward.
"""

from collections.abc import Iterable

from trainer.model.config import SIZES, ModelConfig


def forward_flops(samples: Iterable[tuple[int, int]], config: ModelConfig, channels: int, text_width: int) -> int:
    """Operations of one forward pass.

    Args:
        samples: (video tokens, text tokens) of each sample.
        channels: Channels of a token before it is embedded.
    """
    depth, width, _ = SIZES[config.size]
    total = 0
    for tokens, words in samples:
        linear = (8 + 4 + 4 * config.mlp_ratio) * tokens * width * width  # self, cross (queries, out), MLP
        text = 4 * words * text_width * width  # keys and values of the text
        scores = 4 * tokens * tokens * width + 4 * tokens * words * width
        modulation = 2 * 2 * 6 * width * width  # two rows per sample
        beside = 2 * 27 * tokens * width if config.local else 0
        ends = 4 * tokens * channels * width  # embedding and head
        total += int(depth * (linear + text + scores + modulation + beside) + ends)
    return total


def step_flops(samples: Iterable[tuple[int, int]], config: ModelConfig, channels: int, text_width: int) -> int:
    """Operations of one training step over these samples."""
    return 3 * forward_flops(samples, config, channels, text_width)
