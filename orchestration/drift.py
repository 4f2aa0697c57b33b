"""Whether a score still means what it meant at the last run of its asset: its mean may not wander unnoticed.

Every materialisation of a `score_*` table carries the mean and the spread of each of its numbers, which Dagster
plots over time.  The next one is held against it: a mean that moved by more than half of the earlier spread is worth a
look (new footage, another model, a changed scorer), so the check warns and stops nothing.  The first
materialisation has nothing to be held against and passes.

Cost: a read of the score columns, which the other checks read anyway.
"""

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestration.checks import Finding
from schemas.table import Table

NAME = "no_drift"
DOC = "No mean moved by more than half of the spread that it had at the last materialisation."
_LIMIT = 0.5
_FLAT = 1e-9  # a number that never varied has moved if it moved at all


def has_scores(table: Table) -> bool:
    """Whether drift is watched: tables of scores only."""
    return table.name.startswith("score_") and bool(_columns(table))


def moments(table: Table, rows: pa.Table) -> dict[str, float]:
    """Mean and standard deviation of each number, as `mean_<column>` and `std_<column>`; none where all are null."""
    found = {}
    for name in _columns(table):
        valid = pc.drop_null(rows[name])
        valid = valid.filter(pc.is_finite(valid))
        if len(valid):
            found[f"mean_{name}"] = float(pc.mean(valid).as_py())
            found[f"std_{name}"] = float(pc.stddev(valid).as_py())
    return found


def finding(before: Mapping[str, Any], now: Mapping[str, float]) -> Finding:
    """How far each mean moved, in spreads of the earlier run; the check's numbers name those over the limit."""
    moved = {}
    for key, mean in now.items():
        name = key.removeprefix("mean_")
        if key == name or not all(isinstance(before.get(f"{k}_{name}"), (int, float)) for k in ("mean", "std")):
            continue
        distance = abs(mean - before[key])
        spread = float(before[f"std_{name}"])
        moved[name] = distance / spread if spread > _FLAT else (0.0 if distance <= _FLAT else math.inf)
    over = {
        f"moved_{n}": round(m, 3) if math.isfinite(m) else "from a constant" for n, m in moved.items() if m > _LIMIT
    }
    return Finding(not over, {"compared": len(moved), "limit_in_spreads": _LIMIT, **over})


def _columns(table: Table) -> list[str]:
    return [f.name for f in table.schema if pa.types.is_floating(f.type)]
