"""`dailies train verify`: what the trainer promises, measured on this machine in half a minute.

Packed loss against the loss of each sample alone (float32), the same pack in another order, the pixels that fitting
cuts off beyond the snap, padding tokens, how full packs are, and how long packing takes.  Shapes are drawn as real
corpora are: 30 % images, lognormal durations, five aspect ratios.  The model is a small one with every
zero-initialised part moved away from zero, since zeros would agree with anything, and with everything switched on that
looks at other tokens.

Source of the promises: NaViT, arXiv:2307.06304.  Cost: packing is pure integers; the model sees a few packs.
"""

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import torch

from pipelines.execute import Progress
from trainer.config import DrawConfig
from trainer.data import Drawn, Sample, batch_of, draw_visit
from trainer.flow import FlowConfig
from trainer.model.config import ModelConfig, TextConfig
from trainer.model.dit import DiT
from trainer.model.text import train_tokenizer
from trainer.packing import fill, pack_stream
from trainer.plan import Visit
from trainer.shapes import (
    Compression,
    Fit,
    PixelShape,
    ShapeConfig,
    TokenGrid,
    choose_frames,
    fit,
    latent_shape,
    token_grid,
)

ASPECTS = (16 / 9, 9 / 16, 4 / 3, 1.0, 2.39)
_CAPTIONS = (
    "A small red circle moves left over sand, and the camera is still.",
    "A large blue star stands still on grass while the camera pans right; then it falls.",
    "Two white squares.",
)
_CHANNELS = 16
_TEXT = TextConfig(vocabulary=300, width=24, heads=2)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VerifyConfig:
    """On what the promises are tried."""

    samples: int = 20_000
    """Shapes that are packed."""
    window: int = 256
    """Samples that are packed together."""
    budget_samples: int = 4
    """Budget of a pack in longest samples; `PlanConfig.budget` asks for at least four."""
    packs: int = 6
    """Packs that go through the model."""
    seed: int = 0
    """Seed of shapes, weights and draws."""


@dataclasses.dataclass(frozen=True, slots=True)
class Verified:
    """What was found."""

    packed_vs_alone_max_rel: float
    """Largest relative difference of a sample's loss in a pack and alone; the promise is 1e-6."""
    permutation_bitwise_equal: bool
    """Whether another order of the same pack gives the same losses to the bit."""
    cropped_pixels: int
    """Pixels that fitting cut off beyond the snap of less than one cell per axis; the promise is 0."""
    padding_tokens: int
    """Tokens in packs that belong to no sample; the promise is 0."""
    fill: float
    """Share of the budget that full packs hold; the promise is 0.98."""
    pack_100k_s: float
    """CPU seconds to pack 100,000 samples; the promise is 1 s."""

    @property
    def kept(self) -> dict[str, bool]:
        """Each promise, and whether it holds."""
        return {
            "packed_vs_alone_max_rel": self.packed_vs_alone_max_rel <= 1e-6,
            "permutation_bitwise_equal": self.permutation_bitwise_equal,
            "cropped_pixels": self.cropped_pixels == 0,
            "padding_tokens": self.padding_tokens == 0,
            "fill": self.fill >= 0.98,
            "pack_100k_s": self.pack_100k_s <= 1.0,
        }


def draw_shapes(count: int, seed: int) -> list[tuple[int, int, int]]:
    """(width, height, frames) of clips as corpora have them: 30 % images, lognormal durations, five aspects."""
    rng = np.random.default_rng(seed)
    area = np.exp(rng.normal(np.log(480 * 270), 0.6, count)).clip(128 * 128, 1280 * 720)
    aspect = np.array(ASPECTS)[rng.integers(0, len(ASPECTS), count)] * np.exp(rng.normal(0, 0.02, count))
    seconds = np.exp(rng.normal(np.log(5.0), 0.6, count)).clip(2.0, 20.0)
    frames = np.where(rng.random(count) < 0.3, 1, np.round(seconds * 24))
    width, height = np.sqrt(area * aspect), np.sqrt(area / aspect)
    return [(int(w), int(h), int(f)) for w, h, f in zip(width.round(), height.round(), frames)]


def _fitted(clip: tuple[int, int, int], shape: ShapeConfig, sizes: Compression) -> tuple[Fit, TokenGrid]:
    width, height, frames = clip
    chosen = len(choose_frames(frames, 24.0, shape, sizes).indices)
    latent_frames = 1 + (chosen - 1) // sizes.time
    fitted = fit(width, height, latent_frames, shape, sizes)
    return fitted, token_grid(latent_shape(PixelShape(chosen, fitted.height, fitted.width), sizes), sizes)


def _beyond_snap(fitted: Fit, cell: int) -> int:
    """Pixels cut off per picture over what a cell's remainder explains."""
    rows = max(0, fitted.trimmed_height - (cell - 1))
    columns = max(0, fitted.trimmed_width - (cell - 1))
    return rows * fitted.scaled_width + columns * fitted.scaled_height


def small_model(seed: int) -> DiT:
    """A DiT in which nothing is zero."""
    torch.manual_seed(seed)
    model = DiT(ModelConfig(size="tiny", local=True, text=_TEXT), _CHANNELS, train_tokenizer(list(_CAPTIONS), _TEXT))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return model.eval()


def _visits(pack: Sequence[int], grids: Sequence[TokenGrid], seed: int) -> tuple[list[Drawn], list[torch.Tensor]]:
    draw = DrawConfig(tasks=("text_to_video:0.5", "image_to_video:0.5"), no_caption=0.2)
    drawn, tokens = [], []
    for i in pack:
        text = _CAPTIONS[i % len(_CAPTIONS)]
        sample = Sample(f"clip{i}", "", grids[i], 0.25, text[:12], text)
        drawn.append(draw_visit(Visit(f"clip{i}", 0, 0), sample, _CHANNELS, seed, draw, FlowConfig(), Compression()))
        rng = np.random.default_rng([seed, i])
        tokens.append(torch.from_numpy(rng.standard_normal((grids[i].num_tokens, _CHANNELS), dtype=np.float32)))
    return drawn, tokens


def verify(config: VerifyConfig, shape: ShapeConfig) -> Verified:
    """Try every promise; nothing is assumed."""
    sizes = Compression(patch=shape.patch)
    fits = [_fitted(clip, shape, sizes) for clip in draw_shapes(config.samples, config.seed)]
    grids = [g for _, g in fits]
    lengths = [g.num_tokens for g in grids]
    budget = config.budget_samples * max(lengths)
    packs = list(pack_stream(enumerate(lengths), budget, config.window))
    full = packs[:-1] or packs  # the end of a finite stream is as it is
    start = time.process_time()
    many = (lengths * (100_000 // len(lengths) + 1))[:100_000]
    packed = sum(len(p) for p in pack_stream(enumerate(many), budget, config.window))
    seconds = time.process_time() - start
    if packed != len(many) or sorted(i for p in packs for i in p) != list(range(len(lengths))):
        raise AssertionError("packing lost or repeated a sample")
    relative, equal, padding = _through_the_model(packs[: config.packs], grids, config.seed)
    return Verified(
        packed_vs_alone_max_rel=relative,
        permutation_bitwise_equal=equal,
        cropped_pixels=sum(_beyond_snap(f, sizes.cell) for f, _ in fits),
        padding_tokens=padding,
        fill=fill(([lengths[i] for i in p] for p in full), budget),
        pack_100k_s=round(seconds, 3),
    )


def _through_the_model(
    packs: Sequence[Sequence[int]], grids: Sequence[TokenGrid], seed: int
) -> tuple[float, bool, int]:
    """(largest relative difference, whether permutations are equal, padding tokens)."""
    model, rng = small_model(seed), np.random.default_rng(seed)
    worst, equal, padding = 0.0, True, 0
    progress = Progress("verify", len(packs), "pack")
    with torch.inference_mode():
        for pack in packs:
            drawn, tokens = _visits(pack, grids, seed)
            batch = batch_of(drawn, tokens)
            padding += len(batch.pack.x) - sum(grids[i].num_tokens for i in pack)
            packed = batch.losses(model(batch.pack))
            for i, (d, x) in enumerate(zip(drawn, tokens)):
                one = batch_of([d], [x])
                alone = one.losses(model(one.pack))[0]
                worst = max(worst, float((packed[i] - alone).abs() / alone))
            order = rng.permutation(len(pack)).tolist()
            other = batch_of([drawn[i] for i in order], [tokens[i] for i in order])
            equal = equal and torch.equal(packed[order], other.losses(model(other.pack)))
            progress.advance()
    progress.close()
    return worst, equal, padding
