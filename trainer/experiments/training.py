"""Train an arm of an experiment with the one training loop there is, once.

A finished arm is a folder `<root>/experiments/arms/<key>/`: weights, config and tokenizer as any DiT checkpoint has
them, its ledger, its validation rows, the curve, and `arm.json` with what it cost.  The folder appears whole, so its
being there means that there is nothing to train.  A killed arm goes on at its last snapshot, in
`work/experiments/<key>/`.

CPU seconds are the process's own and add up over kills, but for the last few seconds before one.  Operations are
counted from the ledger (`flops.py`): three forward passes of every sample of every step.
"""

import dataclasses
import functools
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.execute import RunLog
from schemas.captions import fields_of
from schemas.ledger import LEDGER
from schemas.rendering import as_json
from schemas.store import Store
from schemas.validation import VALIDATION
from trainer.checkpoint import run_folder
from trainer.determinism import deterministic
from trainer.diary import Diary
from trainer.dit_stage import build, write_model
from trainer.experiments.arms import Arm, Row
from trainer.flops import forward_flops
from trainer.model.dit import num_parameters
from trainer.snapshots import Snapshots
from trainer.train import Trainer, fit

_FACTS, _CLOCK = "arm.json", "cpu.json"
_CLOCK_EVERY_S = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Trained:
    """A finished arm."""

    key: str
    path: str
    """Its folder, relative to the root."""
    facts: dict[str, Any]
    reused: bool
    """It was there already."""

    @property
    def checkpoint(self) -> dict[str, Any]:
        """As a row of the checkpoint table, for who loads it."""
        return {"digest": self.facts["digest"], "path": self.path, "trained_on": self.facts["manifest"]}

    def ledger(self, store: Store) -> pa.Table:
        """Which clips each step saw, with which noise level and kind of caption."""
        return LEDGER.conform(pq.read_table(store.fetch(self.path, f"{LEDGER.name}.parquet")))

    def validation(self, store: Store) -> pa.Table:
        """The validation grid at the end; empty if nothing was held out."""
        return VALIDATION.conform(pq.read_table(store.fetch(self.path, f"{VALIDATION.name}.parquet")))


def train(store: Store, arm: Arm, stop_at: int | None = None) -> Trained:
    """Train an arm, or find that it was trained.

    Args:
        stop_at: Leave after this step as a kill would (for tests).

    Raises:
        ModelError: If latents or a snapshot do not read.
    """
    path = f"experiments/arms/{arm.key}"
    if store.exists(path, _FACTS):
        return Trained(arm.key, path, store.read_json(path, _FACTS), reused=True)
    settings, optimizer = arm.settings, arm.settings.dit.optimizer
    snapshots = Snapshots(run_folder(store, "experiments", arm.key), optimizer.snapshot_every_s)
    clock = _Clock(snapshots.folder / _CLOCK)
    with deterministic(optimizer.threads):
        rows, held = [dict(r) for r in arm.rows], [dict(r) for r in arm.held]
        trainer = build(store, rows, settings, rows[0]["manifest"], held=held, texts=arm.texts or None)
        fit(
            trainer,
            snapshots,
            stop_at,
            log=functools.partial(RunLog, store, "experiments", arm.key),
            validation=settings.dit.validation,
            watch=clock,
        )
    facts = _publish(store, arm, trainer, snapshots, clock, path) if stop_at is None else {}
    return Trained(arm.key, path, facts, reused=False)


def is_trained(store: Store, arm: Arm) -> bool:
    """Whether there is nothing to train."""
    return store.exists("experiments", "arms", arm.key, _FACTS)


def _publish(
    store: Store, arm: Arm, trainer: Trainer, snapshots: Snapshots, clock: "_Clock", path: str
) -> dict[str, Any]:
    diary = Diary(snapshots.folder, trainer.step)
    folder = Path(store.scratch())
    ledger = diary.ledger()
    losses = ledger["loss"].to_pylist()
    tenth = max(1, len(losses) // 10)
    facts = {
        "name": arm.name,
        "digest": write_model(folder, trainer, arm.settings, arm.rows[0]["autoencoder"]),
        "manifest": arm.rows[0]["manifest"],
        "autoencoder": arm.rows[0]["autoencoder"],
        "seed": arm.seed,
        "steps": trainer.step,
        "rows": len(arm.rows),
        "held_out": len(arm.held),
        "samples_seen": len(losses),
        "tokens_seen": sum(ledger["tokens"].to_pylist()),
        "parameters": num_parameters(trainer.model),
        "flops": training_flops(ledger, arm.rows, trainer),
        "loss_first": sum(losses[:tenth]) / tenth,
        "loss_last": sum(losses[-tenth:]) / tenth,
        "cpu_s": round(clock.total(), 2),
        "threads": arm.settings.dit.optimizer.threads,
    }
    pq.write_table(ledger, folder / f"{LEDGER.name}.parquet")
    pq.write_table(diary.validation(), folder / f"{VALIDATION.name}.parquet")
    shutil.copy(snapshots.folder / "metrics.jsonl", folder / "metrics.jsonl")
    (folder / _FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True))
    store.publish_folder(folder, *path.split("/"))
    snapshots.clear()
    return facts


def training_flops(ledger: pa.Table, rows: list[Row] | Any, trainer: Trainer) -> float:
    """Operations of all steps, from which captions the ledger says were read."""
    by_clip = {r["clip_id"]: r for r in rows}
    seen = list(zip(*(ledger[name].to_pylist() for name in ("clip_id", "caption", "tokens"))))
    pairs = sorted({(clip, kind) for clip, kind, _ in seen})
    lengths = trainer.model.text.lengths([_text(by_clip[clip], kind) for clip, kind in pairs])
    words = dict(zip(pairs, lengths))
    model = trainer.model
    samples = [(tokens, words[clip, kind]) for clip, kind, tokens in seen]
    return 3.0 * forward_flops(samples, model.config, model.token_channels, model.text.width)


def _text(row: Row, kind: str) -> str:
    if kind == "json":
        return as_json(fields_of(row["fields"]))
    return "" if kind == "none" else row[kind] or ""


class _Clock:
    """CPU seconds of a run over all its starts; called after every step."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = json.loads(path.read_text())["cpu_s"] if path.exists() else 0.0
        self._begun, self._last = time.process_time(), time.monotonic()

    def __call__(self, trainer: Trainer) -> None:
        if time.monotonic() - self._last > _CLOCK_EVERY_S:
            self._last = time.monotonic()
            staged = self._path.with_suffix(".staged")
            staged.write_text(json.dumps({"cpu_s": self.total()}))
            os.replace(staged, self._path)

    def total(self) -> float:
        return float(self._before + time.process_time() - self._begun)
