"""Ledger, validation and metrics of a run, kept beside its snapshots; what is newer than the snapshot is forgotten.

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
from schemas.table import Table
from schemas.validation import VALIDATION, ValidationRow


class Diary:
    """What happened, step by step."""

    def __init__(self, folder: Path, step: int) -> None:
        self._folder, self._from = folder, step
        self._rows: list[LedgerRow] = []
        self._looked: list[ValidationRow] = []
        self._metrics: list[dict[str, Any]] = []
        for table in (LEDGER, VALIDATION):
            for path in self._parts(table):
                if int(path.stem.split("-")[2]) > step:
                    path.unlink()
        self._write_metrics([line for line in self.metrics() if line["step"] < step])

    def add(self, rows: list[LedgerRow], metrics: dict[str, Any]) -> None:
        self._rows.extend(rows)
        self._metrics.append(metrics)

    def add_validation(self, rows: list[ValidationRow]) -> None:
        """What a look at the validation grid gave."""
        self._looked.extend(rows)

    def flush(self, step: int) -> None:
        """Write what was added since the last flush, before the snapshot of the same step."""
        if not self._rows and not self._looked:
            return
        for table, rows in ((LEDGER, self._rows), (VALIDATION, self._looked)):
            if rows:
                path = self._folder / f"{table.name}-{self._from:09d}-{step:09d}.parquet"
                staged = path.with_suffix(".staged")
                pq.write_table(table.from_rows(rows), staged)
                os.replace(staged, path)
        self._write_metrics([*self.metrics(), *self._metrics])
        self._rows, self._looked, self._metrics, self._from = [], [], [], step

    def ledger(self) -> pa.Table:
        """All flushed rows."""
        return self._whole(LEDGER)

    def validation(self) -> pa.Table:
        """All flushed looks at the validation grid."""
        return self._whole(VALIDATION)

    def metrics(self) -> list[dict[str, Any]]:
        """All flushed metrics, one entry per step."""
        with contextlib.suppress(FileNotFoundError):
            return [json.loads(line) for line in (self._folder / "metrics.jsonl").read_text().splitlines()]
        return []

    def _write_metrics(self, lines: list[dict[str, Any]]) -> None:
        staged = self._folder / "metrics.staged"
        staged.write_text("".join(json.dumps(line) + "\n" for line in lines))
        os.replace(staged, self._folder / "metrics.jsonl")

    def _whole(self, table: Table) -> pa.Table:
        parts = [table.conform(pq.read_table(p)) for p in self._parts(table)]
        return table.sorted(pa.concat_tables(parts)) if parts else table.empty()

    def _parts(self, table: Table) -> list[Path]:
        return sorted(self._folder.glob(f"{table.name}-*.parquet"))
