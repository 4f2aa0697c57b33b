"""`dailies diff` and `dailies forget`: what changed between manifests, and how a video leaves a root."""

import argparse
from collections.abc import Mapping
from typing import Any

from orchestration import rooms
from orchestration.ask import Answer, Ask
from pipelines.manifest import forget as forgetting
from pipelines.manifest.diff import diff as compare
from pipelines.running import lock


def diff(question: Ask, args: argparse.Namespace) -> Answer:
    """Clips that came, went or changed between two manifests, and by which rule."""
    found = compare(question.readable(), args.older, args.newer)
    return Answer(found, _text(found), question.command("manifest list"))


def forget(question: Ask, args: argparse.Namespace) -> Answer:
    """Show what names a video; with --yes remove it."""
    store = question.readable()
    from captioner.pairs.teacher import TEACHER_CAPTIONS

    tables = [*(t for p in rooms.all_stages() for t in p.stage.writes), TEACHER_CAPTIONS]  # the latter on demand
    found = forgetting.trace(store, args.video, tables)
    text = forgetting.as_text(found)
    if not args.yes:
        hint = question.command(f"forget {args.video} --yes")
        return Answer({**found.as_json(), "removed": False}, f"{text}\nnothing is removed without --yes", hint)
    with lock.alone(store, "forget", None):
        forgetting.forget(store, found, tables)
    text += "\nremoved; delete the source files too, else they come back when their folder is probed again"
    return Answer({**found.as_json(), "removed": True}, text, question.command("manifest freeze"))


def _text(found: Mapping[str, Any]) -> str:
    clips, hours = found["clips"], found["hours"]
    lines = [
        f"older    {found['older']}  {clips['older']} clips, {hours['older']:.4g} h",
        f"newer    {found['newer']}  {clips['newer']} clips, {hours['newer']:.4g} h",
    ]
    for word in ("came", "went"):
        part = found[word]
        lines.append(f"{word:<8} {part['clips']} clips, {part['hours']:.4g} h")
        lines += [f"           {count:>6}  {why}" for why, count in part["by"].items()]
    lines.append(f"changed  {found['changed']['clips']} clips")
    lines += [f"           {count:>6}  {column}" for column, count in found["changed"]["by"].items()]
    lines += [f"policy   {change}" for change in found["policy"]] or ["policy   the same"]
    return "\n".join(lines)
