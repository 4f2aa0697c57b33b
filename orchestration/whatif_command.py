"""`dailies whatif`: other rules over the scores that are there, answered from Parquet; nothing is written or decoded.

The policy asked about is the recipe's (or a file, or a preset), with single bounds moved by `--set`.  The
answer says what would be kept, at which rule clips fall, which rules fall together, what each alone costs, and
what comes and goes against the verdicts that stand.
"""

import argparse
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration import recipes, rooms
from orchestration.ask import Answer, Ask
from orchestration.sql import as_text
from pipelines.execute import reusable
from pipelines.policy import presets
from pipelines.policy import whatif as engine
from pipelines.policy.rules import PRESET, Rule, move_bound, read_policy
from schemas import batches
from schemas.scores import DUPLICATES

_CHECKED = 50
"""So many batches are asked whether their verdicts stand; it costs a footer of every input each."""


def whatif(question: Ask, args: argparse.Namespace) -> Answer:
    """The funnel, the overlap, each rule's effect, the hours that are left, and the difference."""
    store = question.readable()
    rooms_of_recipe = {f.name for f in dataclasses.fields(recipes.Recipe)}
    given = list(args.bounds or ())
    settings = [b for b in given if b.split(".")[0] in rooms_of_recipe]
    bounds = [b for b in given if b not in settings]
    config = recipes.recipe(question.recipe, (*question.settings, *settings))
    rules: tuple[Rule, ...] = read_policy(args.policy) if args.policy else config.curation.policy.resolved()
    for bound in bounds:
        rules = move_bound(rules, bound)
    if question.batch:
        batches.get(store, question.batch)  # says which there are
    began = time.perf_counter()
    asked = engine.ask(store, rules, [question.batch] if question.batch else ())
    found = {**engine.answer(asked), "query_s": round(time.perf_counter() - began, 3)}
    if args.policy and args.policy.startswith(PRESET):
        about = presets.describe(args.policy.removeprefix(PRESET))
        found["preset"] = {k: about.get(k, "") for k in ("source", "about")}
    found["stale_batches"] = _stale(question, asked.batches)
    found["not_applied"] = {r.name: r.not_applied for r in rules if r.not_applied}
    return Answer(found, text(found), question.command(_then(args.policy, bounds)))


def _then(policy: str | None, bounds: Sequence[str]) -> str:
    """The command that makes it so."""
    made = [f"--set curation.policy.file={policy}"] if policy else []
    made += [f"--set curation.policy.bounds={','.join(bounds)}"] if bounds else []
    return " ".join(["stage verdicts", *made]) if made else "whatif --set RULE.min=VALUE"


def _stale(question: Ask, names: Sequence[str]) -> list[str]:
    """Batches whose verdicts would come out otherwise today, with the recipe's own policy."""
    placed = rooms.named("verdicts")
    config = placed.config(question.config())
    return [n for n in names[:_CHECKED] if reusable(placed.stage, question.store, config, batch=n) is None]


def text(found: Mapping[str, Any]) -> str:
    """For people."""
    rules = found["rules"]
    moved = [r for r in rules if r["moved"] and not r["skipped"]]
    parts = [
        "asked about: " + (", ".join(_moved(r) for r in moved) or "the rules that stand"),
        _verdicts(found),
        _funnel(found["funnel"]),
        _effects(rules),
        _overlap(found["overlap"]),
        _left(found["left"]["aspect"], "aspect"),
        _left(found["left"]["duration"], "length"),
        _difference(found["difference"]),
    ]
    notes = [f"{found['preset']['source']}: {found['preset']['about']}"] if "preset" in found else []
    notes += [f"not decided by {r['rule']}: {r['skipped']}" for r in rules if r["skipped"]]
    if found["stale_batches"]:
        names = ", ".join(found["stale_batches"])
        notes.append(
            f"the standing verdicts of {names} are older than their scores or settings: `dailies stage verdicts`"
        )
    if any(r["column"].startswith(f"{DUPLICATES.name}.") for r in rules if r["moved"]):
        notes.append(f"{DUPLICATES.name}.cosine is known only above the bound of the stage `duplicates`")
    return "\n\n".join(p for p in (*parts, "\n".join(notes)) if p)


def _moved(rule: Mapping[str, Any]) -> str:
    def bounds(r: Mapping[str, Any]) -> str:
        return " ".join(f"{k} {r[k]:g}" for k in ("min", "max") if r[k] is not None)

    was = rule["stood"]
    return f"{rule['rule']} {bounds(rule)}" + (f" (stood: {bounds(was)})" if was else f" ({rule['column']}, new)")


def _hours(amount: Mapping[str, Any]) -> str:
    return f"{amount['hours']:.4g}"


def _verdicts(found: Mapping[str, Any]) -> str:
    before, after = found["before"], found["after"]
    rows = [
        [w, before[w]["clips"], _hours(before[w]), after[w]["clips"], _hours(after[w])]
        for w in ("keep", "reject", "error")
    ]
    return as_text(["verdict", "clips stood", "hours stood", "clips now", "hours now"], rows)


def _funnel(steps: Sequence[Mapping[str, Any]]) -> str:
    most = max(steps[0]["clips"], 1)
    rows = [
        [
            s["rule"],
            s["clips"],
            _hours(s),
            s["lost"]["clips"],
            f"{s['clips'] / most:.1%}",
            "#" * round(30 * s["clips"] / most),
        ]
        for s in steps
        if s["lost"]["clips"] or s is steps[0] or s is steps[-1]
    ]
    return as_text(["funnel: after", "clips", "hours", "lost here", "left", ""], rows)


def _effects(rules: Sequence[Mapping[str, Any]]) -> str:
    columns = ["rule", "column", "min", "max", "rejects", "only it", "shared out", "back without", "hours back"]
    rows = []
    for r in (r for r in rules if not r["skipped"]):
        back = r["back_without_it"]
        rows.append(
            [
                r["rule"] + (" *" if r["moved"] else ""), r["column"], r["min"], r["max"], r["rejects"]["clips"],
                r["only_it"]["clips"], f"{r['share_of_rejected']:.1f}", back["clips"], _hours(back),
            ]
        )  # fmt: skip
    return as_text(columns, rows) if rows else ""


def _overlap(overlap: Mapping[str, Any]) -> str:
    """Only rules that reject anything; a dot for no clip in common."""
    shown = [i for i, row in enumerate(overlap["clips"]) if row[i]]
    names = [overlap["rules"][i] for i in shown]
    rows = [[names[k], *(overlap["clips"][i][j] or "." for j in shown)] for k, i in enumerate(shown)]
    return as_text(["both reject", *(n[:10] for n in names)], rows) if len(shown) > 1 else ""


def _left(cells: Mapping[str, Mapping[str, Any]], kind: str) -> str:
    rows = [
        [name, c["before"]["clips"], _hours(c["before"]), c["after"]["clips"], _hours(c["after"])]
        for name, c in cells.items()
    ]
    return as_text([f"kept, by {kind}", "clips stood", "hours stood", "clips now", "hours now"], rows) if rows else ""


def _difference(found: Mapping[str, Any]) -> str:
    if not found["moves"]:
        return "no verdict changes"
    lines = [f"{found['came']['clips']} clips come back ({_hours(found['came'])} h), {found['went']['clips']} go "
             f"({_hours(found['went'])} h)"]  # fmt: skip
    for word, key in (("back from", "came_by"), ("lost to", "went_by")):
        lines += [f"  {word} {name}: {v['clips']} clips, {_hours(v)} h" for name, v in found[key].items()]
    return "\n".join(lines)
