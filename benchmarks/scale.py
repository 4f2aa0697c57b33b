"""Sums for clips that fit no single GPU: tokens, operations, memory and traffic of a training step, on paper.

    python -m benchmarks.scale            the two tables of docs/scale.md

Nothing is measured here.  Tokens come from `trainer.shapes`, operations from `trainer.flops`; memory and traffic
are the formulas in `Sharded`, so that an assumption can be changed and the tables made again.
"""

import dataclasses

from trainer.flops import step_flops
from trainer.model.config import SIZES, ModelConfig
from trainer.shapes import Compression, PixelShape, latent_shape, token_grid

MODEL = ModelConfig(size="XL")
COMPRESSION = Compression(time=4, space=8, patch=2)
CHANNELS, TEXT_TOKENS, TEXT_WIDTH = 64, 512, 4096
"""Channels of a token (16 latent channels, 2 x 2 cells), and umT5-XXL's length and width."""
PEAK, REACHED = 989e12, 0.40
"""Dense bf16 operations per second of one H100 or H200 (data sheet), and the share of it that this project aims for."""
CLIPS = {
    "5 s, 832x480, 16 frame/s": PixelShape(81, 480, 832),
    "10 s, 1280x720, 24 frame/s": PixelShape(241, 720, 1280),
    "60 s, 1920x1088, 24 frame/s": PixelShape(1441, 1088, 1920),
}
SHARDS = (1, 8, 16, 64)
GB = 1e9


@dataclasses.dataclass(frozen=True)
class Sharded:
    """One clip of `tokens` over `ranks` GPUs, the model's own state sharded over the same ones."""

    tokens: int
    ranks: int

    @property
    def state_bytes(self) -> float:
        """Weights, gradients, AdamW's two moments and the average, fp32: 20 bytes a parameter."""
        return 20 * parameters() / self.ranks

    @property
    def kept_bytes(self) -> float:
        """With activation checkpointing one bf16 block input per block is kept."""
        depth, width, _ = SIZES[MODEL.size]
        return depth * self.tokens / self.ranks * width * 2

    @property
    def block_bytes(self) -> float:
        """What one block holds while it is recomputed: about 24 bf16 vectors of the model's width per token."""
        _, width, _ = SIZES[MODEL.size]
        return 24 * self.tokens / self.ranks * width * 2

    @property
    def memory_bytes(self) -> float:
        return self.state_bytes + self.kept_bytes + self.block_bytes

    @property
    def all_to_all_bytes(self) -> float:
        """What a rank sends in a step if heads are exchanged (Ulysses): q, k, v and the result, per block, in the
        forward pass, its recomputation and the backward pass (which moves them twice)."""
        depth, width, _ = SIZES[MODEL.size]
        share = (self.ranks - 1) / self.ranks
        return 4 * depth * 4 * self.tokens / self.ranks * width * 2 * share

    @property
    def ring_bytes(self) -> float:
        """The same if keys and values go round (ring attention): every rank passes on all the others' in the forward
        pass and its recomputation, and their gradients with them in the backward pass."""
        depth, width, _ = SIZES[MODEL.size]
        return (2 + 2 + 4) * depth * self.tokens * (self.ranks - 1) / self.ranks * width * 2

    @property
    def step_s(self) -> float:
        """Seconds of arithmetic at the aimed-for utilisation."""
        return flops(self.tokens) / (PEAK * REACHED * self.ranks)


def parameters() -> int:
    """Of the transformer's blocks: attention 8, MLP 8, modulation 6 squares of the width, cross keys and values."""
    depth, width, _ = SIZES[MODEL.size]
    return int(depth * ((4 + 2 + 2 * MODEL.mlp_ratio + 6) * width * width + 2 * TEXT_WIDTH * width))


def tokens(clip: PixelShape) -> int:
    return token_grid(latent_shape(clip, COMPRESSION), COMPRESSION).num_tokens


def flops(length: int) -> int:
    return step_flops([(length, TEXT_TOKENS)], MODEL, CHANNELS, TEXT_WIDTH)


def attention_share(length: int) -> float:
    """Share of a step's operations that grows with the square of the length."""
    depth, width, _ = SIZES[MODEL.size]
    return 3 * depth * 4 * length * length * width / flops(length)


def clips_table() -> list[str]:
    """Markdown: what one step over one clip costs."""
    lines = ["| clip | tokens | PFLOP per step | of it attention | GPU seconds at 40 % |", "|---|---|---|---|---|"]
    for name, clip in CLIPS.items():
        n = tokens(clip)
        one = Sharded(n, 1)
        lines.append(f"| {name} | {n:,} | {flops(n) / 1e15:,.1f} | {attention_share(n):.1%} | {one.step_s:,.1f} |")
    return lines


def shards_table() -> list[str]:
    """Markdown: the longest clip over more and more GPUs."""
    lines = [
        "| GPUs | state GB | kept GB | block GB | together GB | exchange of heads GB | ring GB | arithmetic s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    length = max(tokens(c) for c in CLIPS.values())
    for ranks in SHARDS:
        s = Sharded(length, ranks)
        sums = (s.state_bytes, s.kept_bytes, s.block_bytes, s.memory_bytes, s.all_to_all_bytes, s.ring_bytes)
        lines.append(f"| {ranks} | " + " | ".join(f"{x / GB:,.1f}" for x in sums) + f" | {s.step_s:,.0f} |")
    return lines


def main() -> None:
    print("\n".join([*clips_table(), "", *shards_table()]))


if __name__ == "__main__":
    main()
