"""The validation grid: noise level x size x duration x aspect x task, on fixed clips and fixed noise.

The training loss says little: each step has its own noise levels, and most of the loss is noise level.  Here nothing is
drawn anew, so two numbers can be compared, between steps, runs and forks.  Clips are those that were held out of
training (`holdout`), chosen so that every shape is there before any shape is there twice; with none held out, clips of
the training set, and the column `held_out` says so.  The weights are the average, which is what sampling uses.

Source: torchtitan's stratified noise levels; Open-Sora 1.2 found this loss to follow quality.
Cost: one forward pass of `clips` x `levels` x tasks samples, every `every` steps.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from schemas.validation import ValidationRow
from trainer import randomness

if TYPE_CHECKING:  # configs load without torch
    from trainer.data import Drawn
    from trainer.train import Trainer

HELD_OUT = "held out for validation"
_SEED = 20_240_215
_WIDE = 1.2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ValidationConfig:
    """What is looked at, and how often."""

    every: int = 0
    """Steps between two looks; there is one more at the end. 0: never."""
    holdout: float = 0.0
    """Share of the rows that are kept out of training, chosen by their ids."""
    clips: int = 12
    """Most clips of the grid."""
    levels: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    """Noise levels."""
    tasks: tuple[str, ...] = ("text_to_video", "image_to_video")
    """Tasks; a clip that does not fit one is left out of it."""

    def __post_init__(self) -> None:
        if self.every < 0 or not 0 <= self.holdout < 1 or self.clips < 1:
            raise ValueError("validation: every >= 0, holdout in [0, 1) and clips >= 1 are needed")
        if not self.levels or not all(0 < t < 1 for t in self.levels):
            raise ValueError(f"validation: levels lie between 0 and 1, got {self.levels}")


def is_held_out(clip_id: str, share: float) -> bool:
    """Whether a clip is kept out of training: by its id alone, so that it is in every manifest or in none."""
    return share > 0 and randomness.uniform(_SEED, clip_id, 0, "held out") < share


def aspect_of(height: int, width: int) -> str:
    """wide, square or tall."""
    return "wide" if width > _WIDE * height else "tall" if height > _WIDE * width else "square"


def chosen(clips: Mapping[str, Any], most: int) -> list[str]:
    """Clips of the grid: each shape once, then each again, in an order that ids alone decide."""
    by_shape: dict[Any, list[str]] = {}
    for clip_id in sorted(clips, key=lambda c: randomness.uniform(_SEED, c, 0, "grid")):
        grid = clips[clip_id].grid
        by_shape.setdefault((aspect_of(grid.height, grid.width), grid.frames, grid.num_tokens), []).append(clip_id)
    found: list[str] = []
    shapes = [by_shape[k] for k in sorted(by_shape)]
    for turn in range(max((len(s) for s in shapes), default=0)):
        found += [s[turn] for s in shapes if turn < len(s)]
    return sorted(found[:most])


def validate(trainer: "Trainer", config: ValidationConfig) -> list[ValidationRow]:
    """The whole grid with the average weights; every process of a run calls it and gets the same rows."""
    import torch

    from trainer.data import batch_of
    from trainer.packing import pack_stream

    model, samples = trainer.model, trainer.samples
    held = {c: s for c, s in samples.rows.items() if not trainer.plan.knows(c)}
    of = held or samples.rows
    cells = [d for c in chosen(of, config.clips) for d in _cells(trainer, c, config)]
    packs = pack_stream(((i, len(d.given)) for i, d in enumerate(cells)), trainer.plan.config.budget, 256)
    rows = []
    was_training = model.training
    model.eval()
    with torch.no_grad(), trainer.with_average():
        for pack in packs:
            drawn = [cells[i] for i in pack]
            batch = batch_of(drawn, [samples.drawn(d) for d in drawn], trainer.world.device)
            losses = batch.losses(model(batch.pack).float()).tolist()
            rows += [_row(trainer, d, loss, bool(held)) for d, loss in zip(drawn, losses)]
    model.train(was_training)
    return rows


def _cells(trainer: "Trainer", clip_id: str, config: ValidationConfig) -> "Iterator[Drawn]":
    from trainer.config import DrawConfig
    from trainer.data import draw_visit
    from trainer.plan import Visit

    for task in config.tasks:
        draw = DrawConfig(tasks=(f"{task}:1",), short_captions=0.0, no_caption=0.0)
        sample, channels = trainer.samples.rows[clip_id], trainer.model.token_channels
        drawn = draw_visit(Visit(clip_id, 0, 0), sample, channels, _SEED, draw, trainer.flow, trainer.sizes)
        if drawn.task == task:
            yield from (dataclasses.replace(drawn, t=t) for t in config.levels)


def _row(trainer: "Trainer", drawn: "Drawn", loss: float, held_out: bool) -> ValidationRow:
    grid = trainer.samples.rows[drawn.visit.clip_id].grid
    return ValidationRow(
        step=trainer.step,
        clip_id=drawn.visit.clip_id,
        task=drawn.task,
        t=drawn.t,
        held_out=held_out,
        aspect=aspect_of(grid.height, grid.width),
        frames=grid.frames,
        height=grid.height,
        width=grid.width,
        loss=loss,
        manifest=trainer.manifest,
    )


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means of the first and the last look, and of the last one by noise level, task and aspect."""
    if not rows:
        return {}
    first, last = min(r["step"] for r in rows), max(r["step"] for r in rows)
    found: dict[str, Any] = {
        "validation_first": _mean([r for r in rows if r["step"] == first]),
        "validation_last": _mean([r for r in rows if r["step"] == last]),
        "validation_held_out": bool(rows[0]["held_out"]),
    }
    for axis in ("t", "task", "aspect", "frames"):
        for value in sorted({r[axis] for r in rows}):
            found[f"validation_{axis}_{value}"] = _mean([r for r in rows if r["step"] == last and r[axis] == value])
    return found


def _mean(rows: Sequence[Mapping[str, Any]]) -> float:
    return float(f"{sum(r['loss'] for r in rows) / len(rows):.6g}")
