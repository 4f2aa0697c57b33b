"""The one table that a demo ends with: what went in, what was kept, how good each room is, what it cost.

Reads tables only, so that it says the same after a run that computed nothing.  Rates carry their 95 %
interval; generated videos stand beside chance and beside a control whose prompts were shuffled.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.rooms import Placed
from schemas import batches
from schemas.ledger import LEDGER
from schemas.manifest import MANIFEST
from schemas.samples import EVALUATION
from schemas.shots import SHOTS
from schemas.store import Store
from schemas.table import Table
from schemas.verdicts import SELECTIONS
from schemas.videos import SCANS, VIDEOS


def numbers(store: Store, placed: Sequence[Placed], batch: batches.Batch) -> dict[str, Any]:
    """Everything the table says, as plain values."""

    def rows(table: Table, columns: list[str]) -> list[dict[str, Any]]:
        found = store.committed(table, batch.name if table.partitioned else None)
        if found is None:
            return []
        read = store.read(table, batch=batch.name if table.partitioned else None, columns=columns)
        return read.to_pylist()

    chosen = rows(SELECTIONS, ["verdict", "reasons"])
    scans = rows(SCANS, ["status", "decode_passes"])
    manifest = rows(MANIFEST, ["manifest"])
    return {
        "root": store.root,
        "batch": batch.name,
        "kind": batch.kind,
        "videos": dict(Counter(r["status"] for r in scans or rows(VIDEOS, ["status"]))),
        "decode_passes_per_source": max((r["decode_passes"] for r in scans), default=None),
        "shots": len(rows(SHOTS, ["shot_id"])),
        "clips": dict(Counter(r["verdict"] for r in chosen)),
        "rejected_by": dict(Counter(x for r in chosen if r["verdict"] == "reject" for x in r["reasons"])),
        "manifest": {"digest": manifest[0]["manifest"] if manifest else None, "rows": len(manifest)},
        "loss": _loss(rows(LEDGER, ["step", "loss"])),
        "measures": rows(EVALUATION, ["group", "name", "metric", "value", "low", "high", "n", "chance"]),
        "stages": {p.name: _seconds(store, p, batch.name) for p in placed},
        "report": _report(store),
    }


def table(found: Mapping[str, Any]) -> str:
    """The numbers as people read them."""
    measures = found["measures"]
    clips = found["clips"]
    lines = [
        ("sources", _counts(found["videos"]) + f"; decoded {found['decode_passes_per_source']} time each"),
        ("shots", f"{found['shots']}" + _inline(measures, "boundaries", "f1", "; boundary F1 ")),
        ("clips", f"{sum(clips.values())}: {_counts(clips)}"),
        ("rejected by", _counts(found["rejected_by"])),
        *_group(measures, "policy", "policy", ("precision", "recall")),
        *_group(measures, "captions", "captions", ("precision", "recall", "accuracy", "rate")),
        ("manifest", f"{found['manifest']['digest']}, {found['manifest']['rows']} clips"),
        ("DiT loss", _drop(found["loss"])),
        *_generated(measures),
        *_combinations(measures),
        ("stages", _stages(found["stages"])),
        ("report", str(found["report"])),
    ]
    rule = "-" * 100
    body = [f"{name:<14} {text}" for name, text in lines if text]
    return "\n".join([rule, *body, rule])


def _group(
    measures: Sequence[Mapping[str, Any]], group: str, title: str, metrics: Sequence[str]
) -> list[tuple[str, str]]:
    """One line per name, with its metrics side by side."""
    names: dict[str, list[str]] = {}
    for m in measures:
        if m["group"] == group and m["metric"] in metrics and m["value"] is not None:
            names.setdefault(m["name"], []).append(f"{m['metric']} {_rate(m)}")
    return [
        (title if i == 0 else "", f"{name:<16} {', '.join(found)}") for i, (name, found) in enumerate(names.items())
    ]


def _generated(measures: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Attribute accuracy of generated videos, beside the shuffled control and chance."""
    control = {m["name"]: m for m in measures if m["group"] == "control"}
    lines: list[tuple[str, str]] = []
    for m in measures:
        if m["group"] != "generated" or m["metric"] != "accuracy":
            continue
        beside = f"; shuffled {_rate(control[m['name']])}" if m["name"] in control else ""
        chance = "" if m["chance"] is None else f"; chance {m['chance']:.2f}"
        lines.append(("" if lines else "generated", f"{m['name']:<16} {_rate(m)}{beside}{chance}"))
    return lines


def _combinations(measures: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """How often all is right at once on prompts whose combination no training clip shows, and on the others."""
    together = {m["group"]: m for m in measures if m["name"] == "together"}
    lines: list[tuple[str, str]] = []
    for group, unseen in together.items():
        if not group.startswith("unseen_") or not unseen["n"]:
            continue
        level = group.removeprefix("unseen_")
        control = together.get(f"control_{group}")
        beside = f"; shuffled {_rate(control)}" if control else ""
        text = f"{_rate(unseen)}{beside}; seen {_rate(together[f'seen_{level}'])}"
        lines.append(("" if lines else "never together", f"{level:<16} {text}"))
    return lines


def _inline(measures: Sequence[Mapping[str, Any]], group: str, metric: str, before: str) -> str:
    found = [f"{m['name']} {_rate(m)}" for m in measures if m["group"] == group and m["metric"] == metric]
    return before + ", ".join(found) if found else ""


def _rate(m: Mapping[str, Any]) -> str:
    if m["value"] is None:
        return "none (n 0)"
    interval = f" [{m['low']:.2f}, {m['high']:.2f}]" if m["low"] is not None and m["high"] is not None else ""
    return f"{m['value']:.2f}{interval}" + (f" n {m['n']}" if m["n"] else "")


def _counts(found: Mapping[str, int]) -> str:
    return ", ".join(f"{k} {v}" for k, v in sorted(found.items(), key=lambda kv: (-kv[1], kv[0]))) or "none"


def _loss(ledger: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Mean loss of the first and of the last tenth of the steps."""
    if not ledger:
        return None
    steps = sorted({r["step"] for r in ledger})
    tenth = max(len(steps) // 10, 1)
    ends = {"first": set(steps[:tenth]), "last": set(steps[-tenth:])}
    mean = {}
    for name, wanted in ends.items():
        losses = [r["loss"] for r in ledger if r["step"] in wanted]
        mean[name] = sum(losses) / len(losses)
    return {**mean, "steps": len(steps)}


def _drop(loss: Mapping[str, float] | None) -> str:
    if loss is None:
        return ""
    return f"{loss['first']:.4f} -> {loss['last']:.4f} (first and last tenth of {loss['steps']:.0f} steps)"


def _seconds(store: Store, placed: Placed, batch: str) -> float | None:
    made = store.committed(placed.stage.writes[0], batch if placed.stage.partitioned else None)
    return None if made is None else float(made.metrics.get("seconds", 0))


def _stages(found: Mapping[str, float | None]) -> str:
    shown = [f"{name} {'-' if s is None else f'{s:.0f} s'}" for name, s in found.items()]
    lines = [", ".join(shown[i : i + 6]) for i in range(0, len(shown), 6)]
    total = sum(s or 0 for s in found.values())
    return ("\n" + " " * 15).join([*lines, f"together {total:.0f} s of work"])


def _report(store: Store) -> str | None:
    return store.at("report", "report.html") if store.exists("report", "report.html") else None
