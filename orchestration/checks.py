"""What must hold of a table before the next stage reads it: Dagster's blocking asset checks.

Pure functions from a table to a finding.  They run in the step that made the table, so that they cost a
read and no process; a failed one stops what is downstream.  A check that only warns says something a person
should look at.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.store import Store
from schemas.table import Table

_MAY_BE_EMPTY = (
    "duplicates",
    "clusters",
    "fingerprints",
    "pairs_left_out",
    "caption_claims",
    "caption_verdicts",
    "skipped",
    "validation",
    "score_aesthetic",
    "score_sidecar",
    "score_unsafe",
    "score_ocr",
)
_MAX_FAILED = 0.2
"""Share of failed items in a table with a status above which the world, not the items, is at fault."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw."""

    passed: bool
    numbers: dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One promise of a table."""

    name: str
    doc: str
    run: Callable[[Table, pa.Table], Finding]
    blocking: bool = True
    columns: tuple[str, ...] = ()
    """What it reads; all key columns where empty."""


def has_rows(table: Table, rows: pa.Table) -> Finding:
    return Finding(rows.num_rows > 0 or table.name in _MAY_BE_EMPTY, {"rows": rows.num_rows})


def unique_key(table: Table, rows: pa.Table) -> Finding:
    distinct = rows.select(list(table.key)).group_by(list(table.key)).aggregate([]).num_rows
    return Finding(distinct == rows.num_rows, {"repeated": rows.num_rows - distinct})


def no_nulls(table: Table, rows: pa.Table) -> Finding:
    """Arrow does not hold a column to `nullable=False`; this does."""
    bad = {f.name: rows[f.name].null_count for f in table.schema if not f.nullable and f.name in rows.column_names}
    bad = {name: count for name, count in bad.items() if count}
    return Finding(not bad, {f"nulls_in_{name}": count for name, count in bad.items()})


def one_decode_pass(table: Table, rows: pa.Table) -> Finding:
    most = pc.max(rows["decode_passes"]).as_py() or 0
    return Finding(most <= 1, {"decode_passes_per_source": most})


def few_failures(table: Table, rows: pa.Table) -> Finding:
    failed = sum(1 for s in rows["status"].to_pylist() if s == "failed")
    share = failed / max(rows.num_rows, 1)
    return Finding(share <= _MAX_FAILED, {"failed": failed, "failed_share": round(share, 4)})


def few_errors(table: Table, rows: pa.Table) -> Finding:
    errors = sum(1 for e in rows["error"].to_pylist() if e)
    share = errors / max(rows.num_rows, 1)
    return Finding(share <= _MAX_FAILED, {"errors": errors, "error_share": round(share, 4)})


def something_kept(table: Table, rows: pa.Table) -> Finding:
    kept = sum(1 for v in rows["verdict"].to_pylist() if v == "keep")
    return Finding(kept > 0, {"kept": kept, "kept_share": round(kept / max(rows.num_rows, 1), 4)})


def captions_written(table: Table, rows: pa.Table) -> Finding:
    ok = sum(1 for s in rows["status"].to_pylist() if s == "ok")
    return Finding(ok > 0, {"ok": ok, "ok_share": round(ok / max(rows.num_rows, 1), 4)})


_BY_TABLE: dict[str, tuple[Check, ...]] = {
    # not blocking: a long file whose parts cannot be joined is decoded again in one go, which costs and breaks nothing
    "scans": (Check("one_decode_pass", "No source is decoded twice.", one_decode_pass, False, ("decode_passes",)),),
    "selections": (
        Check("something_kept", "The policy keeps at least one clip.", something_kept, False, ("verdict",)),
    ),
    "clip_files": (Check("few_failures", "Clips were cut.", few_failures, columns=("status",)),),
    "captions": (
        Check("few_failures", "The captioner answered.", few_failures, columns=("status",)),
        Check("captions_written", "At least one caption is usable.", captions_written, columns=("status",)),
    ),
    "latents": (Check("few_failures", "Clips were encoded.", few_failures, columns=("status",)),),
    "samples": (Check("few_failures", "Samples were made.", few_failures, columns=("status",)),),
}


def checks_of(table: Table) -> tuple[Check, ...]:
    """All checks of a table: those of every table, and its own."""
    general = (
        Check("has_rows", "There are rows.", has_rows),
        Check("unique_key", f"No two rows have the same {', '.join(table.key)}.", unique_key),
        Check("no_nulls", "Columns that may not be null are not.", no_nulls, columns=tuple(_plain(table))),
    )
    scores = (
        (Check("few_errors", "The scorer worked.", few_errors, columns=("error",)),)
        if table.name.startswith("score_")
        else ()
    )
    return general + scores + _BY_TABLE.get(table.name, ())


def findings(store: Store, table: Table, batch: str | None) -> dict[str, Finding]:
    """Run a table's checks on what is committed."""
    checks = checks_of(table)
    columns = sorted({*table.key, *(c for check in checks for c in check.columns)})
    rows = store.read(table, batch=batch, columns=columns)
    return {check.name: check.run(table, rows) for check in checks}


def _plain(table: Table) -> list[str]:
    """Columns that are cheap to read: no pictures, no lists."""
    return [f.name for f in table.schema if not pa.types.is_nested(f.type) and not pa.types.is_binary(f.type)]
