"""A tiny training run in memory: no footage, no store, the same numbers on every machine up to rounding; not a test."""

from typing import Any

import numpy as np
import torch

from schemas.settings import override
from trainer import randomness
from trainer.config import DitConfig, DrawConfig, OptimizerConfig
from trainer.data import Drawn, Sample
from trainer.model.config import ModelConfig, TextConfig
from trainer.model.dit import DiT
from trainer.model.text import train_tokenizer
from trainer.plan import Plan, PlanConfig, Row
from trainer.shapes import Compression, TokenGrid
from trainer.train import Trainer

CHANNELS = 12
GRIDS = [TokenGrid(t, h, w) for t, h, w in [(1, 3, 5), (3, 4, 4), (2, 5, 3), (1, 4, 4), (4, 2, 6), (2, 3, 3)]]


class InMemory:
    """Clips with made-up latents; has what `trainer.data.Samples` has."""

    def __init__(self, clips: int = 24) -> None:
        self.rows = {
            f"clip{i:02d}": Sample(
                f"clip{i:02d}", "", GRIDS[i % len(GRIDS)], 0.25, f"Take {i}.", f"A red square moves, take {i}."
            )
            for i in range(clips)
        }

    def tokens(self, clip_id: str) -> torch.Tensor:
        shape = (self.rows[clip_id].grid.num_tokens, CHANNELS)
        return torch.from_numpy(randomness.noise(7, clip_id, 0, shape, "latent"))

    def drawn(self, drawn: Drawn) -> torch.Tensor:
        """A visit's clean tokens."""
        return self.tokens(drawn.visit.clip_id)[: len(drawn.given)]


def config(*settings: str) -> DitConfig:
    """A run of a few steps; `--set` texts change it."""
    return override(
        DitConfig(
            model=ModelConfig(size="nano", text=TextConfig(vocabulary=300, width=24, heads=2)),
            plan=PlanConfig(budget=128, window=64, packs_per_step=4),
            draw=DrawConfig(tasks=("text_to_video:0.7", "image_to_video:0.3")),
            optimizer=OptimizerConfig(steps=6, learning_rate=1e-3, warmup_steps=2, threads=1, snapshot_every_s=0.0),
        ),
        settings,
    )


def trainer(*settings: str, samples: Any = None, **how: Any) -> Trainer:
    """The run's trainer, at step 0."""
    of = config(*settings)
    data = samples or InMemory()
    texts = [t for s in data.rows.values() for t in (s.short, s.dense)]
    torch.manual_seed(randomness.torch_seed(of.plan.seed, "dit"))
    rows = {c: Row(tokens=s.grid.num_tokens, frames=s.grid.frames) for c, s in data.rows.items()}
    plan = Plan("manifest0", rows, of.plan)
    return Trainer(
        DiT(of.model, CHANNELS, train_tokenizer(texts, of.model.text)),
        data,
        plan,
        optimizer=of.optimizer,
        draw=of.draw,
        flow=of.flow,
        sizes=Compression(),
        manifest="manifest0",
        **how,
    )


def weights_sum(made: Trainer) -> float:
    """One number that moves when any weight does."""
    return float(np.sum([v.double().abs().sum().item() for v in made.model.state_dict().values()]))
