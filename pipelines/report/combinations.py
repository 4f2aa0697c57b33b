"""The report's part on combinations: prompts that ask for what no training clip shows together, beside the others.

One row per level and attribute, with the same videos scored against shuffled prompts.  Nothing is shown where no
prompt was unseen, or where nobody knows what the training clips show (`pipelines/synthetic/combinations.py`).
"""

from collections.abc import Mapping
from typing import Any

from pipelines.report import page as html
from pipelines.report.tables import Tables
from schemas.samples import EVALUATION

_GROUPS = ("unseen_", "control_unseen_", "seen_", "control_seen_")
_COLUMNS = ("unseen", "95 %", "n", "shuffled", "seen", "95 %", "n", "shuffled")


def section(tables: Tables) -> tuple[str, int, int]:
    """The report's part."""
    rows = {(r["group"], r["name"]): r for r in tables.rows(EVALUATION)}
    body = []
    for group, name in rows:
        if not group.startswith("unseen_") or not rows[group, name]["n"]:
            continue
        level = group.removeprefix("unseen_")
        unseen, unseen_control, seen, seen_control = (rows.get((g + level, name)) for g in _GROUPS)
        body.append([level.replace("_", " "), name, *_rate(unseen, unseen_control), *_rate(seen, seen_control)])
    return html.table(("level", "attribute", *_COLUMNS), body), 0, len(body)


def _rate(own: Mapping[str, Any] | None, control: Mapping[str, Any] | None) -> list[Any]:
    if own is None or own["value"] is None:
        return [None, "", 0, None]
    return [own["value"], f"{own['low']:.3f} to {own['high']:.3f}", own["n"], control["value"] if control else None]
