"""Ledger and metrics of a run, kept beside its snapshots; what is newer than the snapshot is forgotten.

Rows are written just before the snapshot of the same step, so that after a kill at any moment the snapshot's step and
the rows agree.  Cost: one small Parquet file per snapshot.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.ledger import LEDGER, LedgerRow


class Diary:
    """What happened, step by step."""

    def __init__(self, folder: Path, step: int) -> None:
        self._folder, self._from = folder, step
        self._rows: list[LedgerRow] = []
        self._metrics: list[dict[str, Any]] = []
        for path in self._parts():
            if int(path.stem.split("-")[2]) > step:
                path.unlink()
        self._write_metrics([line for line in self.metrics() if line["step"] < step])

    def add(self, rows: list[LedgerRow], metrics: dict[str, Any]) -> None:
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

    def metrics(self) -> list[dict[str, Any]]:
        """All flushed metrics, one entry per step."""
        with contextlib.suppress(FileNotFoundError):
            return [json.loads(line) for line in (self._folder / "metrics.jsonl").read_text().splitlines()]
        return []

    def _write_metrics(self, lines: list[dict[str, Any]]) -> None:
        staged = self._folder / "metrics.staged"
        staged.write_text("".join(json.dumps(line) + "\n" for line in lines))
        os.replace(staged, self._folder / "metrics.jsonl")

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("ledger-*.parquet"))
