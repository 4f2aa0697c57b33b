"""Commands that only read: tables, one clip's history, one training step, the manifests."""

import argparse
import posixpath
from typing import Any

from orchestration import audit as trail
from orchestration import sql as queries
from orchestration.ask import Answer, Ask
from schemas.errors import UsageError


def sql(question: Ask, args: argparse.Namespace) -> Answer:
    """One SELECT over the tables."""
    store = question.readable()
    columns, rows = queries.query(store, args.query)
    return Answer(
        {"columns": columns, "rows": [[_plain(v) for v in row] for row in rows]},
        queries.as_text(columns, rows),
    )


def audit(question: Ask, args: argparse.Namespace) -> Answer:
    """One clip from source file to training steps."""
    found = trail.follow(question.readable(), args.clip_id)
    steps = found.get("training", {}).get("steps")
    then = question.command(f"explain step {steps[0]}") if steps else question.command("sql 'SELECT * FROM selections'")
    return Answer(_plain(found), trail.as_text(found), then)


def explain(question: Ask, args: argparse.Namespace) -> Answer:
    """What training saw: of a clip, or in a step."""
    store = question.readable()
    if args.what == "clip":
        found = trail.follow(store, args.id)
        seen: dict[str, Any] = {k: found[k] for k in ("clip_id", "manifest", "latents", "training") if k in found}
        return Answer(_plain(seen), trail.as_text(seen), question.command(f"audit {found['clip_id']}"))
    if not str(args.id).isdigit():
        raise UsageError(f"a step is a number from 0, got `{args.id}`")
    found = trail.step(store, int(args.id))
    first = found["samples"][0]["clip_id"]
    return Answer(_plain(found), trail.as_text(found), question.command(f"audit {first}"))


def manifest_list(question: Ask, args: argparse.Namespace) -> Answer:
    """All frozen manifests, the newest marked."""
    store = question.readable()
    current = None
    if "manifest" in queries.tables(store):
        _, rows = queries.query(store, "SELECT any_value(manifest) FROM manifest")
        current = rows[0][0]
    found = []
    for path in sorted(store.fs.glob(store.at("manifests", "*", "_manifest.json"))):
        digest = posixpath.basename(posixpath.dirname(path))
        notes = store.read_json("manifests", digest, "_manifest.json")
        rows_in = notes.get("rows", notes.get("num_rows"))
        found.append({"manifest": digest, "rows": rows_in, "current": digest == current})
    if not found:
        raise UsageError(
            f"root {store.root} has no manifest yet: freeze one with `{question.command('manifest freeze')}`"
        )
    text = "\n".join(f"{m['manifest']}  {m['rows']} clips{'  (current)' if m['current'] else ''}" for m in found)
    return Answer({"manifests": found}, text, question.command("train dit"))


def _plain(value: Any) -> Any:
    """What JSON can hold; pictures become their size."""
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
