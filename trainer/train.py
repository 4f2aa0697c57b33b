"""The training loop, one page: plan -> packs -> loss -> step, with a ledger of every sample.

The estimand is the mean over the step's samples of per-sample means, divided by the number of samples in the
whole step, however many packs or processes it is spread over.  Everything random is keyed by sample and visit
(`data.py`), order and packs by step (`plan.py`), so a run killed at any moment and started again ends with
the same bytes, and one on other processes sees the same rows in the same steps.  Recipe: AdamW or Muon, warm-up and
cosine, gradient clipping, steps that spike are skipped (`guard.py`), an average of the weights (EMA).

Source: SD3, arXiv:2403.03206.  Cost: printed as tokens per second and MFU while it runs (`meter.py`).
"""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from pipelines.execute import Progress, RunLog
from schemas.ledger import LedgerRow
from trainer import capsule
from trainer.checkpoint import optimizer_tensors
from trainer.config import DrawConfig, OptimizerConfig
from trainer.data import Batch, Drawn, Samples, batch_of, draw_visit
from trainer.diary import Diary
from trainer.feed import Feed
from trainer.flops import forward_flops
from trainer.flow import FlowConfig
from trainer.guard import Guard
from trainer.launch import LaunchConfig
from trainer.meter import Meter, gemm_rate
from trainer.model.dit import DiT
from trainer.optimizer import optimizer_of
from trainer.parallelize import ALONE, World, deal, parallelize
from trainer.plan import Plan, Visit
from trainer.shapes import Compression
from trainer.snapshots import Snapshots
from trainer.validate import ValidationConfig, validate

_PRECISION = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclasses.dataclass(frozen=True)
class _Ready:
    """What this process does of a step."""

    packs: tuple[tuple[int, Batch], ...]
    """Number within the step, and the pack."""
    count: int
    """Samples of the whole step, over all processes."""
    flops: float


@dataclasses.dataclass(frozen=True)
class Stepped:
    """What came of a step, the same in every process."""

    rows: list[LedgerRow]
    metrics: dict[str, Any]
    flops: float
    skipped: str
    """Why the step was not taken; empty if it was."""


class Trainer:
    """A model, its average, its optimiser, and the step it is at."""

    def __init__(
        self,
        model: DiT,
        samples: Samples,
        plan: Plan,
        *,
        optimizer: OptimizerConfig,
        draw: DrawConfig,
        flow: FlowConfig,
        sizes: Compression,
        manifest: str,
        world: World | None = None,
        launch: LaunchConfig | None = None,
    ) -> None:
        self.world = world or dataclasses.replace(ALONE, device=optimizer.device)
        launch = launch or LaunchConfig()
        self.model, self.samples, self.plan = model.to(self.world.device), samples, plan
        self.config, self.draw, self.flow, self.sizes, self.manifest = optimizer, draw, flow, sizes, manifest
        self.spread = parallelize(self.model, self.world, launch.mode, launch.recompute, launch.blocks_by)
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        sharded = launch.mode == "shard" and self.world.size > 1
        self._optimizer = optimizer_of(model, optimizer, sharded=sharded)
        self.guard = Guard(optimizer.spike)
        self.feed = Feed(self._prepare, optimizer.steps)
        self.step = 0

    def train_step(self) -> tuple[list[LedgerRow], dict[str, Any]]:
        """One optimiser step; returns its ledger rows and its metrics."""
        done = self.advance()
        return done.rows, done.metrics

    def advance(self, capsules: Path | None = None) -> Stepped:
        """One optimiser step, or the reason why it is not taken.

        Args:
            capsules: Where a step that is skipped leaves its crash capsule; None leaves none.
        """
        ready = self.feed.get(self.step)
        rate = self.config.rate(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        mine: list[LedgerRow] = []
        for number, batch in ready.packs:
            with self.spread.backward(last=number == ready.packs[-1][0]):
                with self._precision():
                    velocity = self.spread.call(batch.pack)
                losses = batch.losses(velocity.float())
                ((losses.sum() / ready.count) * self.spread.loss_scale).backward()
            mine.extend(self._ledger(number, batch.drawn, losses.detach().tolist()))
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        total = torch.nn.utils.get_total_norm(grads)
        norm = float(self.spread.whole(total))
        rows = sorted(self.world.gathered(mine), key=lambda r: (r.pack, r.position))
        metrics = {
            "step": self.step,
            "loss": sum(r.loss for r in rows) / ready.count,
            "gradient_norm": norm,
            "learning_rate": rate,
            "tokens": sum(r.tokens for r in rows),
            "samples": ready.count,
        }
        skipped = self.guard.reason(norm)
        if skipped:
            metrics["skipped"] = skipped
            self._keep(capsules, skipped, rows, norm)
        else:
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), self.config.clip_norm, total)
            self._optimizer.step()
            self._follow()
        self.step += 1
        return Stepped(rows, metrics, sum(self.world.gathered([ready.flops])), skipped)

    def _prepare(self, step: int) -> _Ready:
        packs = self.plan.step(step)
        costs = [self._flops([(self.plan.tokens(v), 0) for v in visits]) for visits in packs]
        mine = deal(costs, self.world.size)[self.world.rank]
        made = []
        words: list[tuple[int, int]] = []
        for number in mine:
            drawn, tokens = self._drawn(packs[number], step)
            made.append((number, batch_of(drawn, tokens, self.world.device)))
            words += [(len(x), n) for x, n in zip(tokens, self.model.text.lengths([d.text for d in drawn]))]
        return _Ready(tuple(made), sum(len(p) for p in packs), 3 * self._flops(words))

    def _drawn(self, visits: list[Visit], step: int) -> tuple[list[Drawn], list[torch.Tensor]]:
        """A pack's visits with everything decided, and their clean tokens."""
        flow = self.flow.at(step / self.config.steps)
        drawn = [
            draw_visit(
                v,
                self.samples.rows[v.clip_id],
                self.model.token_channels,
                self.plan.config.seed,
                self.draw,
                flow,
                self.sizes,
            )
            for v in visits
        ]
        return drawn, [self.samples.drawn(d) for d in drawn]

    def _flops(self, samples: list[tuple[int, int]]) -> float:
        return forward_flops(samples, self.model.config, self.model.token_channels, self.model.text.width)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        kind = _PRECISION[self.config.precision]
        if kind is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.world.device.split(":")[0], kind)

    def _follow(self) -> None:
        """Move the average towards the weights; quickly at first, so that it forgets the start."""
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        state = self.model.state_dict()
        names = [k for k, v in state.items() if v.is_floating_point()]
        average, weights = ([_local(of[k]) for k in names] for of in (self.average, state))
        torch._foreach_lerp_(average, weights, 1 - decay)

    @contextlib.contextmanager
    def with_average(self) -> Iterator[None]:
        """The average in the weights' place; afterwards they are the very bits they were."""
        state = self.model.state_dict()
        kept = {k: v.detach().clone() for k, v in state.items()}
        try:
            for name, value in state.items():
                value.copy_(self.average[name])
            yield
        finally:
            for name, value in state.items():
                value.copy_(kept[name])

    def _keep(self, capsules: Path | None, reason: str, rows: list[LedgerRow], norm: float) -> None:
        """Leave a crash capsule; every process must come here, the first one writes."""
        if capsules is None:
            return
        weights = {k: self.spread.whole(v.detach()) for k, v in self.model.state_dict().items()}
        if not self.world.first or len(list(capsules.glob("step-*"))) >= self.config.capsules:
            return
        packs = [self._drawn(visits, self.step) for visits in self.plan.step(self.step)]
        notes = {"step": self.step, "gradient_norm": norm, "manifest": self.manifest}
        folder = capsules / f"step-{self.step:09d}"
        capsule.write(folder, reason=reason, rows=rows, packs=packs, weights=weights, model=self.model, notes=notes)
        print(f"dit: step {self.step} skipped, {reason}: `dailies train replay {folder}`", file=sys.stderr, flush=True)

    def _ledger(self, pack: int, drawn: tuple[Drawn, ...], losses: list[float]) -> list[LedgerRow]:
        return [
            LedgerRow(
                step=self.step,
                pack=pack,
                position=position,
                clip_id=d.visit.clip_id,
                epoch=d.visit.epoch,
                tokens=len(d.given),
                t=d.t,
                task=d.task,
                caption=d.caption,
                loss=losses[position],
                manifest=self.manifest,
            )
            for position, d in enumerate(drawn)
        ]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything a snapshot holds."""
        weights = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        average = {f"average.{k}": v for k, v in self.average.items()}
        return {**weights, **average, **optimizer_tensors(self._optimizer), "guard": self.guard.state}

    def restore(self, snapshots: Snapshots) -> None:
        """Go on where the newest snapshot was taken.

        Raises:
            ModelError: If it is of another model.
        """
        with torch.no_grad():
            self.step = snapshots.restore(self.tensors())

    def close(self) -> None:
        """Stop making packs ahead."""
        self.feed.close()


def fit(
    trainer: Trainer,
    snapshots: Snapshots,
    stop_at: int | None = None,
    *,
    log: Callable[[int], RunLog] | None = None,
    capsules: Path | None = None,
    validation: ValidationConfig | None = None,
    watch: Callable[["Trainer"], None] | None = None,
    speed: dict[str, float] | None = None,
) -> pa.Table:
    """Train to the last step, from the newest snapshot if there is one; returns the whole ledger.

    Every process of a run calls it; the first one writes and speaks.

    Args:
        stop_at: Leave after this step without a snapshot, as a kill would (for tests).
        log: Opens the run's curve, given the steps that are known.
        capsules: Where steps that are skipped leave their crash capsules; by default beside the snapshots.
        validation: What is looked at as training goes on; None looks at nothing.
        watch: Is shown the trainer after every step.
        speed: Is filled with tokens per second, MFU and so on at the end.
    """
    trainer.restore(snapshots)
    world, config = trainer.world, trainer.config
    diary = Diary(snapshots.folder, trainer.step) if world.first else None
    curve = log(trainer.step) if log and world.first else None
    progress = Progress("dit", config.steps, "step") if world.first else None
    if progress and trainer.step:
        progress.advance(trainer.step, f"resumed at step {trainer.step}")
    meter = Meter(gemm_rate(world.device, _PRECISION[config.precision]), world.size, config.steps, trainer.step)
    trainer.model.train()
    saved = trainer.step
    try:
        while trainer.step < config.steps and (stop_at is None or trainer.step < stop_at):
            waited = trainer.feed.waited_s
            done = trainer.advance(capsules or snapshots.folder / "capsules")
            meter.add(done.metrics["tokens"], done.flops, trainer.feed.waited_s - waited)
            if diary and progress:
                diary.add(done.rows, done.metrics)
                note = f", skipped: {done.skipped}" if done.skipped else ""
                progress.advance(note=f"loss {done.metrics['loss']:.4f}{note}, {meter.line(trainer.step)}")
            if curve:
                curve.add(trainer.step, {k: v for k, v in done.metrics.items() if isinstance(v, (int, float))})
            if validation and validation.every and trainer.step % validation.every == 0:
                looked = validate(trainer, validation)
                if diary:
                    diary.add_validation(looked)
            if watch:
                watch(trainer)
            if snapshots.due():
                saved = _save(trainer, snapshots, diary)
        if stop_at is None and validation and validation.every and trainer.step % validation.every:
            looked = validate(trainer, validation)
            if diary:
                diary.add_validation(looked)
        if stop_at is None and world.size > 1 and saved < trainer.step:
            _save(trainer, snapshots, diary)
    finally:
        trainer.close()
        if curve:
            curve.close()
        if progress:
            progress.close()
    if speed is not None:
        speed.update(meter.summary())
    if diary is None:
        return pa.table({})
    if stop_at is None:
        diary.flush(trainer.step)
    return diary.ledger()


def _save(trainer: Trainer, snapshots: Snapshots, diary: Diary | None) -> int:
    with snapshots.room():
        if diary:
            diary.flush(trainer.step)
    snapshots.save(trainer.step, trainer.tensors())
    return trainer.step


def _local(value: Any) -> torch.Tensor:
    """The part of a tensor that this process holds."""
    return value.to_local() if hasattr(value, "to_local") else value  # type: ignore[no-any-return]
