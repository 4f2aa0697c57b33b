"""The captioner's training loop: a base model, two fine-tunings where they are wanted, each until it gets no better.

As in DALL-E 3, the base learns from the contrastive and the captioning loss together (CoCa), and two copies of it are
then fine-tuned without the contrastive loss, one on short and one on dense captions.  Every draw is keyed by (seed,
step); a snapshot holds weights, optimiser, stage, step and what early stopping has seen, so that a killed run goes on
to the same weights.  Cost of watching held-out captions: three forward passes every `look_every` steps.
"""

import dataclasses
import io
import math
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from captioner.train.config import TrainConfig
from captioner.train.data import Example, Unsaid, by_shape, draw
from captioner.train.early import Watch
from captioner.train.model import Captioner
from captioner.train.unsaid import groups_of
from pipelines.execute import RunLog

_SHARES = (("short", 1.0), ("dense", 0.0))
"""Share of short captions in each fine-tuning."""
_LOOKS, _LOOKS_FROM = 3, 1 << 40
"""Batches of held-out pairs that are looked at, and the number of the first draw: far from training's."""


class Snapshots(Protocol):
    """Where the state of an unfinished run is kept."""

    def load(self) -> bytes | None: ...

    def save(self, data: bytes) -> None: ...


class Schedule(Protocol):
    """What the learning rate depends on."""

    @property
    def learning_rate(self) -> float: ...

    @property
    def steps(self) -> int: ...

    @property
    def warmup_steps(self) -> int: ...


def rate_at(step: int, config: Schedule, stage: "Stage | None" = None) -> float:
    """Learning rate of a step: linear warmup, then a cosine to 0; a fine-tuning's begins anew."""
    peak, steps = (stage.peak, stage.steps) if stage else (config.learning_rate, config.steps)
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return peak * warm * 0.5 * (1 + math.cos(math.pi * step / steps))


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """One of up to three runs over the pairs."""

    name: str
    """base, short or dense."""
    steps: int
    peak: float
    """Of its learning rate."""
    short_share: float


def stages_of(config: TrainConfig) -> tuple[Stage, ...]:
    """The base model, and its two fine-tunings where they are wanted."""
    base = Stage("base", config.steps, config.learning_rate, config.short_share)
    if not config.fine_tune:
        return (base,)
    tuned = (Stage(name, config.fine_tune_steps, config.fine_tune_rate, share) for name, share in _SHARES)
    return (base, *tuned)


@dataclasses.dataclass(slots=True)
class Run:
    """What a snapshot holds beside weights and optimiser."""

    losses: list[float]
    """Of all steps of all stages."""
    stage: int
    """The one that is being trained; the number of stages when all are done."""
    step: int
    """Steps done of it."""
    finished: dict[str, dict[str, Tensor]]
    """Weights by finished stage."""
    watch: Watch
    kept: int | None = None
    """The step whose weights the last stage that watched kept."""


def fit(
    net: Captioner,
    learn: Sequence[Example],
    held: Sequence[Example],
    config: TrainConfig,
    snapshots: Snapshots,
    on_step: Callable[[int, str], None],
    curve: Callable[[int], RunLog] | None,
    tokenizer: Any,
) -> Run:
    unsaid = Unsaid(config.unsaid, groups_of(tuple(net.slots)), tokenizer, config.model.max_text_tokens)
    stages = stages_of(config)
    run, optimiser = _resume(net, config, snapshots)
    if run.losses:
        on_step(len(run.losses), f"resumed at step {len(run.losses)}")
    with curve(len(run.losses)) if curve else nullcontext() as log:
        while run.stage < len(stages):
            _train_stage(net, optimiser, learn, held, config, stages[run.stage], run, snapshots, on_step, log, unsaid)
            run.finished[stages[run.stage].name] = run.watch.weights or _copied(net)
            run.kept = run.watch.best_step or run.kept
            run.stage, run.step, run.watch = run.stage + 1, 0, Watch(config.patience)
            net.load_state_dict(run.finished["base"])
            optimiser = _optimiser(net, config)
            snapshots.save(_pack(net, optimiser, run))
    net.load_state_dict(run.finished[stages[-1].name])
    return run


def _train_stage(
    net: Captioner,
    optimiser: torch.optim.Optimizer,
    learn: Sequence[Example],
    held: Sequence[Example],
    config: TrainConfig,
    stage: Stage,
    run: Run,
    snapshots: Snapshots,
    on_step: Callable[[int, str], None],
    log: RunLog | None,
    unsaid: Unsaid,
) -> None:
    """Train a stage from where it stands to its end, or until held-out captions get no better."""
    groups, held_groups = by_shape(learn), by_shape(held)
    net.train()
    note, saved = "", time.monotonic()
    before = len(run.losses) - run.step
    while run.step < stage.steps and not run.watch.is_over:
        rate = rate_at(run.step, config, stage)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss, parts = net.loss(*_batch(learn, groups, config, before + run.step, stage.short_share, unsaid))
        if stage.name != "base":
            loss = loss - parts["contrastive"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), config.max_norm)
        optimiser.step()
        run.losses.append(float(loss.detach()))
        run.step += 1
        done = len(run.losses)
        numbers = {"loss": run.losses[-1], "rate": rate, **{k: float(v.detach()) for k, v in parts.items()}}
        if run.step % config.look_every == 0:
            if held:
                numbers["held_out_caption"] = _held_out_loss(net, held, held_groups, config, stage)
                run.watch.look(done, numbers["held_out_caption"], net.state_dict())
            numbers["held_out_fields"] = field_accuracy(net, held[:64])
            note = f"{stage.name}: {_note(run.losses, numbers)}"
        if log is not None:
            log.add(done, numbers)
        if time.monotonic() - saved >= config.snapshot_s or run.step == stage.steps:
            snapshots.save(_pack(net, optimiser, run))
            saved = time.monotonic()
        on_step(done, note)


def _batch(
    examples: Sequence[Example],
    groups: Sequence[Sequence[int]],
    config: TrainConfig,
    step: int,
    short_share: float,
    unsaid: Unsaid | None = None,
) -> Any:
    return draw(
        examples,
        groups,
        seed=config.seed,
        step=step,
        batch=config.batch_size,
        short_share=short_share,
        spoken=config.spoken,
        looked_at=config.model.time_cells,
        unsaid=unsaid,
    )


@torch.no_grad()
def _held_out_loss(
    net: Captioner, held: Sequence[Example], groups: Sequence[Sequence[int]], config: TrainConfig, stage: Stage
) -> float:
    """Mean caption loss of a few fixed batches of held-out pairs."""
    net.eval()
    losses = [
        float(net.loss(*_batch(held, groups, config, _LOOKS_FROM + i, stage.short_share))[1]["caption"])
        for i in range(_LOOKS)
    ]
    net.train()
    return float(np.mean(losses))


def _optimiser(net: Captioner, config: TrainConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        net.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True
    )


def _copied(net: Captioner) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def _pack(net: Captioner, optimiser: torch.optim.Optimizer, run: Run) -> bytes:
    buffer = io.BytesIO()
    names = ("losses", "stage", "step", "finished", "kept")
    state = {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "watch": run.watch.state()}
    torch.save({**state, **{name: getattr(run, name) for name in names}}, buffer)
    return buffer.getvalue()


def _resume(net: Captioner, config: TrainConfig, snapshots: Snapshots) -> tuple[Run, torch.optim.Optimizer]:
    """Take up the snapshot, or begin."""
    run, optimiser = Run([], 0, 0, {}, Watch(config.patience)), _optimiser(net, config)
    state = read_snapshot(snapshots)
    if state is not None:
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        run.watch.resume(state["watch"])
        run.losses = [float(x) for x in state["losses"]]
        run.stage, run.step, run.finished, run.kept = (state[n] for n in ("stage", "step", "finished", "kept"))
    return run, optimiser


def read_snapshot(snapshots: Snapshots) -> dict[str, Any] | None:
    """The state that was kept; one that does not read is as good as none."""
    data = snapshots.load()
    if data is None:
        return None
    try:
        return torch.load(io.BytesIO(data), weights_only=True)  # type: ignore[no-any-return]
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        return None


def _note(losses: Sequence[float], numbers: Mapping[str, float]) -> str:
    parts = ", ".join(f"{k} {numbers[k]:.2f}" for k in ("caption", "contrastive", "fields", "places"))
    held = f", caption {numbers['held_out_caption']:.3f}" if "held_out_caption" in numbers else ""
    return f"loss {np.mean(losses[-50:]):.3f} ({parts}); held-out fields {numbers['held_out_fields']:.3f}{held}"


@torch.no_grad()
def field_accuracy(net: Captioner, examples: Sequence[Example]) -> float:
    """Share of fields that the heads name rightly; 0 without examples."""
    right: list[bool] = []
    for group in by_shape(examples) if net.slots else ():
        frames = torch.from_numpy(np.stack([examples[i].frames for i in group]))
        named = torch.stack([out.argmax(dim=1) for out in net.field_logits(net.see(frames)[0])], dim=1)
        true = torch.tensor([examples[i].fields for i in group])
        right += [bool(r) for r in (named == true)[true >= 0]]
    return float(np.mean(right)) if right else 0.0
