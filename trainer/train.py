"""The training loop, one page: plan -> packs -> loss -> step, with a ledger of every sample.

The estimand is the mean over the step's samples of per-sample means, divided by the number of samples in the
whole step, however many packs or processes it is spread over.  Everything random is keyed by sample and visit
(`data.py`), order and packs by step (`plan.py`), so a run killed at any moment and started again ends with
the same bytes.  Recipe: AdamW, warm-up and cosine, gradient clipping, an average of the weights (EMA).

Source: SD3, arXiv:2403.03206.  Cost: printed as tokens per second while it runs.
"""

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipelines.execute import Progress
from schemas.ledger import LEDGER, LedgerRow
from trainer.checkpoint import Snapshots, optimizer_tensors, restore_optimizer
from trainer.config import DrawConfig, OptimizerConfig
from trainer.data import Samples, batch_of, draw_visit
from trainer.flow import FlowConfig
from trainer.model.dit import DiT
from trainer.plan import Plan
from trainer.shapes import Compression


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
    ) -> None:
        self.model, self.samples, self.plan = model.to(optimizer.device), samples, plan
        self.config, self.draw, self.flow, self.sizes, self.manifest = optimizer, draw, flow, sizes, manifest
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self._adam = torch.optim.AdamW(
            model.parameters(),
            lr=optimizer.learning_rate,
            betas=(optimizer.betas[0], optimizer.betas[1]),
            eps=optimizer.epsilon,
            weight_decay=optimizer.weight_decay,
        )
        self.step = 0

    def train_step(self) -> tuple[list[LedgerRow], dict[str, float]]:
        """One optimiser step; returns its ledger rows and its metrics."""
        packs = self.plan.step(self.step)
        count = sum(len(p) for p in packs)
        for group in self._adam.param_groups:
            group["lr"] = self.config.rate(self.step)
        self._adam.zero_grad(set_to_none=True)
        rows: list[LedgerRow] = []
        for number, visits in enumerate(packs):
            drawn = [
                draw_visit(
                    v,
                    self.samples.rows[v.clip_id],
                    self.model.token_channels,
                    self.plan.config.seed,
                    self.draw,
                    self.flow,
                    self.sizes,
                )
                for v in visits
            ]
            batch = batch_of(drawn, [self.samples.drawn(d) for d in drawn], self.config.device)
            losses = batch.losses(self.model(batch.pack))
            (losses.sum() / count).backward()
            rows.extend(self._ledger(number, drawn, losses.detach().tolist()))
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self._adam.step()
        self._follow()
        metrics = {
            "step": self.step,
            "loss": sum(r.loss for r in rows) / count,
            "gradient_norm": float(norm),
            "learning_rate": self.config.rate(self.step),
            "tokens": sum(r.tokens for r in rows),
            "samples": count,
        }
        self.step += 1
        return rows, metrics

    def _follow(self) -> None:
        """Move the average towards the weights; quickly at first, so that it forgets the start."""
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        state = self.model.state_dict()
        names = [k for k, v in state.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.average[k] for k in names], [state[k] for k in names], 1 - decay)

    def _ledger(self, pack: int, drawn: Iterable[Any], losses: list[float]) -> list[LedgerRow]:
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
        return {**weights, **average, **optimizer_tensors(self._adam)}

    def restore(self, step: int, tensors: dict[str, torch.Tensor]) -> None:
        """Go on after `step` steps."""
        self.step = step
        if not tensors:
            return
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        for name, value in self.average.items():
            value.copy_(tensors[f"average.{name}"])
        restore_optimizer(self._adam, tensors)


def fit(trainer: Trainer, snapshots: Snapshots, stop_at: int | None = None) -> pa.Table:
    """Train to the last step, from the newest snapshot if there is one; returns the whole ledger.

    Args:
        stop_at: Leave after this step without a snapshot, as a kill would (for tests).
    """
    trainer.restore(*snapshots.latest())
    diary = Diary(snapshots.folder, trainer.step)
    progress = Progress("dit", trainer.config.steps, "step")
    progress.advance(trainer.step, f"resumed at step {trainer.step}" if trainer.step else "")
    trainer.model.train()
    while trainer.step < trainer.config.steps:
        if stop_at is not None and trainer.step >= stop_at:
            break
        rows, metrics = trainer.train_step()
        diary.add(rows, metrics)
        progress.advance(note=f"loss {metrics['loss']:.4f}")
        if snapshots.due():
            diary.flush(trainer.step)
            snapshots.save(trainer.step, trainer.tensors())
    progress.close()
    if stop_at is None:
        diary.flush(trainer.step)
    return diary.ledger()


class Diary:
    """Ledger and metrics of a run, kept beside its snapshots; what is newer than the snapshot is forgotten."""

    def __init__(self, folder: Path, step: int) -> None:
        self._folder, self._from = folder, step
        self._rows: list[LedgerRow] = []
        self._metrics: list[dict[str, float]] = []
        for path in self._parts():
            if int(path.stem.split("-")[2]) > step:
                path.unlink()
        kept = [line for line in self.metrics() if line["step"] < step]
        self._write_metrics(kept)

    def add(self, rows: list[LedgerRow], metrics: dict[str, float]) -> None:
        self._rows.extend(rows)
        self._metrics.append(metrics)

    def flush(self, step: int) -> None:
        """Write what was added since the last flush, before the snapshot of the same step."""
        if not self._rows:
            return
        path = self._folder / f"ledger-{self._from:09d}-{step:09d}.parquet"
        staged = path.with_suffix(".staged")
        pq.write_table(LEDGER.from_rows(self._rows), staged)
        os.replace(staged, path)
        self._write_metrics([*self.metrics(), *self._metrics])
        self._rows, self._metrics, self._from = [], [], step

    def ledger(self) -> pa.Table:
        """All flushed rows."""
        parts = [LEDGER.conform(pq.read_table(p)) for p in self._parts()]
        return LEDGER.sorted(pa.concat_tables(parts)) if parts else LEDGER.empty()

    def metrics(self) -> list[dict[str, float]]:
        """All flushed metrics, one entry per step."""
        with contextlib.suppress(FileNotFoundError):
            return [json.loads(line) for line in (self._folder / "metrics.jsonl").read_text().splitlines()]
        return []

    def _write_metrics(self, lines: list[dict[str, float]]) -> None:
        staged = self._folder / "metrics.staged"
        staged.write_text("".join(json.dumps(line) + "\n" for line in lines))
        os.replace(staged, self._folder / "metrics.jsonl")

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("ledger-*.parquet"))
