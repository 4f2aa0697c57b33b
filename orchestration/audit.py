"""One clip from its source file to the training steps that saw it, and one step back to its clips.

Reads tables only; what was never made is left out.  Cost: one scan of each table's id column.
"""

import json
from collections.abc import Mapping
from typing import Any

from orchestration import sql
from schemas.errors import UsageError
from schemas.store import Store

_ONE = ("clips", "selections", "duplicates", "clip_files", "captions", "caption_scores", "manifest", "latents")


def full_id(store: Store, beginning: str) -> str:
    """The clip whose id begins so.

    Raises:
        UsageError: If none does, or several do.
    """
    known = set(sql.tables(store))
    if "clips" not in known:
        raise UsageError(f"root {store.root} has no clips yet: run `dailies curate FOLDER` or `dailies demo`")
    if not beginning.isalnum():
        raise UsageError(f"a clip id is made of hex digits, got `{beginning}`")
    _, rows = sql.query(store, f"SELECT DISTINCT clip_id FROM clips WHERE starts_with(clip_id, '{beginning}') LIMIT 5")  # noqa: S608
    if not rows:
        raise UsageError(f"no clip `{beginning}` under {store.root}; the table `clips` lists them")
    if len(rows) > 1:
        raise UsageError(f"`{beginning}` begins several clip ids: {', '.join(r[0] for r in rows)}")
    return str(rows[0][0])


def follow(store: Store, clip: str) -> dict[str, Any]:
    """Everything that is known of a clip, table by table, in the order of the pipeline."""
    clip = full_id(store, clip)
    known = sql.tables(store)
    found: dict[str, Any] = {"clip_id": clip}
    rows = {name: _rows(store, name, clip) for name in known if name in _ONE}
    if rows.get("clips"):
        span = rows["clips"][0]
        found["video"] = _first(store, "videos", f"video_id = '{span['video_id']}'", known)
        found["shot"] = _first(store, "shots", f"shot_id = '{span['shot_id']}'", known)
        found["clip"] = span
    found["scores"] = {
        name.removeprefix("score_"): row[0]
        for name in known
        if name.startswith("score_") and (row := _rows(store, name, clip))
    }
    if "verdicts" in known:
        found["verdicts"] = _rows(store, "verdicts", clip)
    for name in ("selections", "duplicates", "clip_files", "captions", "caption_scores", "manifest", "latents"):
        if rows.get(name):
            found[name] = rows[name] if name == "duplicates" else rows[name][0]  # a clip may have several better twins
    if "ledger" in known:
        found["training"] = _training(store, clip)
        if "skipped" in known and (left := _rows(store, "skipped", clip)):
            found["training"]["left_out"] = left[0]["reason"]
    return found


def step(store: Store, number: int) -> dict[str, Any]:
    """What one optimiser step was trained on."""
    if "ledger" not in sql.tables(store):
        raise UsageError(f"root {store.root} has no ledger yet: run `dailies train dit`")
    text = f"SELECT * FROM ledger WHERE step = {int(number)} ORDER BY pack, position"  # noqa: S608 - an int
    samples = sql.as_records(*sql.query(store, text))
    if not samples:
        _, rows = sql.query(store, "SELECT min(step), max(step) FROM ledger")
        raise UsageError(f"no step {number} in the ledger; it has steps {rows[0][0]} to {rows[0][1]}")
    return {
        "step": number,
        **_metrics(store, number),
        "samples": samples,
        "packs": len({s["pack"] for s in samples}),
        "tokens": sum(s["tokens"] for s in samples),
        "mean_loss": sum(s["loss"] for s in samples) / len(samples),
        "manifest": samples[0]["manifest"],
    }


def _metrics(store: Store, number: int) -> dict[str, Any]:
    """What the checkpoint's metrics say of a step: the gradient's norm, the rate, and why it was skipped if it was."""
    if "dit_checkpoint" not in sql.tables(store):
        return {}
    _, rows = sql.query(store, "SELECT path FROM dit_checkpoint")
    if not rows or not store.exists(rows[0][0], "metrics.jsonl"):
        return {}
    lines = map(json.loads, store.read_bytes(rows[0][0], "metrics.jsonl").splitlines())
    wanted = ("gradient_norm", "learning_rate", "skipped")
    return next(({k: m[k] for k in wanted if k in m} for m in lines if m["step"] == number), {})


def as_text(found: Mapping[str, Any], indent: str = "") -> str:
    """A nested record, one value per line; what it is about is said once, at the top."""
    lines = []
    known = {"clip_id", "batch"} if indent else set()
    for name, value in found.items():
        if name in known:
            continue
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}", as_text(value, indent + "  ")] if value else []
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            once = {"made_by", "batch", *found}  # a column that stands above the table already
            columns = [c for c in value[0] if c not in once]
            table = sql.as_text(columns, [[row[c] for c in columns] for row in value], most=12)
            lines += [f"{indent}{name}", *(f"{indent}  {row}" for row in table.splitlines())]
        elif value not in (None, "", []):
            lines.append(f"{indent}{name:<18} {value if not isinstance(value, float) else round(value, 5)}")
    return "\n".join(line for line in lines if line)


def _rows(store: Store, table: str, clip: str) -> list[dict[str, Any]]:
    records = sql.as_records(*sql.query(store, f"SELECT * FROM \"{table}\" WHERE clip_id = '{clip}'"))  # noqa: S608
    return [dict(r) for r in records]


def _first(store: Store, table: str, where: str, known: list[str]) -> dict[str, Any]:
    if table not in known:
        return {}
    records = sql.as_records(*sql.query(store, f'SELECT * FROM "{table}" WHERE {where} LIMIT 1'))  # noqa: S608
    return dict(records[0]) if records else {}


def _training(store: Store, clip: str) -> dict[str, Any]:
    rows = _rows(store, "ledger", clip)
    if not rows:
        return {"seen": 0}
    losses = [r["loss"] for r in rows]
    return {
        "seen": len(rows),
        "first_step": min(r["step"] for r in rows),
        "last_step": max(r["step"] for r in rows),
        "mean_loss": sum(losses) / len(losses),
        "captions": {kind: sum(r["caption"] == kind for r in rows) for kind in sorted({r["caption"] for r in rows})},
        "tasks": {kind: sum(r["task"] == kind for r in rows) for kind in sorted({r["task"] for r in rows})},
        "steps": sorted({r["step"] for r in rows})[:50],
    }
