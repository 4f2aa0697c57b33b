"""The report's part on cost: CPU seconds of each stage, and how far the scan is from the least it could cost.

CPU seconds stand in the footer of every table; tables with one digest of inputs came out of one run of one stage.
They are of the run that made what stands: a stage that resumed counts only what it did then.  The floor is the
CPU time of decoding the same sources once to nowhere.  It is measured on a sample by `dailies report
--decode-floor` (`pipelines/report/floor.py`), kept in `blobs/decode_floor.json`, and never guessed.
"""

from collections import defaultdict
from typing import Any

from pipelines.report import page as html
from pipelines.report.tables import Section, Tables
from pipelines.stages import STAGES
from schemas.errors import DamagedTable
from schemas.report import REPORT
from schemas.store import Commit, Store
from schemas.verdicts import SELECTIONS, Verdict
from schemas.videos import SCANS

COST = "What it cost"
FLOOR = ("blobs", "decode_floor.json")
_STAGE_OF = {t.name: s.name for s in STAGES for t in s.writes}


def cost(tables: Tables) -> list[Section]:
    """CPU seconds by stage, per kept clip, and the distance to the floor."""
    found = ledger(tables.store)
    if not found:
        return []
    kept = sum(r["verdict"] == Verdict.KEEP for r in tables.rows(SELECTIONS, "verdict"))
    total = sum(row["cpu_s"] for row in found)
    body = [
        [r["stage"], r["batches"], r["cpu_s"], r["seconds"], f"{r['cpu_s'] / total:.0%}" if total else "",
         r["cpu_s"] / kept if kept else None]
        for r in sorted(found, key=lambda r: -r["cpu_s"])
    ]  # fmt: skip
    columns = ("stage", "runs", "CPU s", "elapsed s", "share", "CPU s per kept clip")
    text = html.table(columns, body) + f"<p>{total:.4g} CPU seconds in all.</p>" + _distance(tables.store, found)
    return [Section(COST, text, 0, len(found))]


def ledger(store: Store) -> list[dict[str, Any]]:
    """One row per stage, over all batches: runs, CPU seconds, elapsed seconds."""
    runs: dict[tuple[str, str, str], dict[str, Any]] = {}
    names: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for path in sorted(store.fs.glob(store.at("tables", "**", "*.parquet"))):
        commit = _footer(store, path)
        if commit is None or "cpu_s" not in commit.metrics or commit.table == REPORT.name:  # what this page itself cost
            continue
        key = (commit.inputs, commit.made_by, commit.batch or "")
        runs[key] = dict(commit.metrics)
        names[key].append(commit.table)
    stages: dict[str, dict[str, Any]] = {}
    for key, metrics in runs.items():
        tables = names[key]
        name = next((_STAGE_OF[t] for t in tables if t in _STAGE_OF), ", ".join(tables))
        row = stages.setdefault(name, {"stage": name, "batches": 0, "cpu_s": 0.0, "seconds": 0.0})
        row["batches"] += 1
        row["cpu_s"] += float(metrics["cpu_s"])
        row["seconds"] += float(metrics.get("seconds", 0.0))
    return list(stages.values())


def _footer(store: Store, path: str) -> Commit | None:
    try:
        return store.footer(path)
    except DamagedTable:
        return None


def floor(store: Store) -> dict[str, Any] | None:
    """What was measured of decoding once to nowhere, if it was."""
    return dict(store.read_json(*FLOOR)) if store.exists(*FLOOR) else None


def _distance(store: Store, found: list[dict[str, Any]]) -> str:
    scan = next((r for r in found if r["stage"] == _STAGE_OF[SCANS.name]), None)
    if scan is None:
        return ""
    known = floor(store)
    if known is None:
        return html.note("The decode floor was not measured on this root: `dailies report --decode-floor` measures it.")
    least = known["cpu_s_of_all"]
    ratio = f"{scan['cpu_s'] / least:.2f}" if least else "not known"
    how = (
        f"Decoding {known['sources']} of {known['sources_of_all']} sources once to nowhere took "
        f"{known['cpu_s']:.4g} CPU s for {known['megapixels']:.4g} megapixels; "
        f"by pixels that is {least:.4g} CPU s for all of them."
    )
    return f"<p>The scan took {scan['cpu_s']:.4g} CPU s, {ratio} times the decode floor. {html.escape(how)}</p>"
