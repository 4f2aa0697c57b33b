"""Commands that compute: each brings a few stages up to date, and none repeats what is already there."""

import argparse
import dataclasses
import os
import posixpath
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from orchestration import ask, rooms
from orchestration.ask import Answer, Ask
from orchestration.rooms import Placed, with_ancestors
from pipelines.execute import Result, run_only
from pipelines.report import floor
from schemas import batches
from schemas.clips import CLIPS
from schemas.errors import FootageError, UsageError
from schemas.samples import EVALUATION
from schemas.store import Store
from schemas.verdicts import SELECTIONS
from schemas.videos import SCANS, VIDEOS


def stage(question: Ask, args: argparse.Namespace) -> Answer:
    """One stage, or the list of them."""
    if args.list or not args.name:
        return _list()
    placed = rooms.named(args.name)
    if args.only is not None:
        return _only(question, placed, args.only)
    results = ask.run(question, [placed], force=args.force)
    found = [_as_json(r) for r in results]
    after = [p.name for p in rooms.all_stages() if placed.name in p.after]
    hint = question.command(f"stage {after[0]}") if after else question.command("report")
    return Answer(found[0] if len(found) == 1 else {"stages": found}, "\n".join(ask.line(r) for r in results), hint)


def _only(question: Ask, placed: Placed, item: str) -> Answer:
    """One item of a stage, on its own: what it gives, or how it fails (exit code 1)."""
    store, config = question.readable(), question.config()
    ((_, batch), *others) = rooms.units([placed], store, question.batch)
    if others:
        raise UsageError(f"several batches have stage `{placed.name}`: name one with --batch")
    workers = ask.workers_of(question)
    rows, failure, seconds = run_only(placed.stage, store, placed.config(config), item, batch=batch, executor=workers)
    found = {"stage": placed.name, "batch": batch, "item": item, "rows": rows, "failure": failure, "seconds": seconds}
    made = ", ".join(f"{name} {count}" for name, count in rows.items())
    text = f"{placed.name} {item}: {failure or 'ok'} ({seconds:.1f} s; rows: {made}; nothing was committed)"
    inline = question.command(f"stage {placed.name} --executor inline --only={shlex.quote(item)}")
    hint = f"{inline} --batch {batch}" if batch else inline
    return Answer(found, text, hint if failure else "", exit_code=1 if failure else 0)


def _list() -> Answer:
    records: list[dict[str, Any]] = [
        {
            "stage": p.name,
            "room": p.room,
            "per_batch": p.stage.partitioned,
            "reads": [t.name for t in p.stage.reads],
            "may_read": [t.name for t in p.stage.optional],
            "writes": [t.name for t in p.stage.writes],
        }
        for p in rooms.all_stages()
    ]
    lines = [f"{'stage':<16} {'room':<10} {'per batch':<10} writes"]
    for r in records:
        per_batch = "yes" if r["per_batch"] else "no"
        lines.append(f"{r['stage']:<16} {r['room']:<10} {per_batch:<10} {', '.join(map(str, r['writes']))}")
    return Answer({"stages": records}, "\n".join(lines), "dailies stage NAME --batch BATCH")


def curate(question: Ask, args: argparse.Namespace) -> Answer:
    """A folder of footage through probe, scan, scores, policy and clip files."""
    folder = check_folder(args.folder)
    name = question.batch or batch_name(folder)
    batches.check_name(name)
    store = question.writable()
    kind = batches.get(store, name).kind if name in batches.names(store) else batches.FOOTAGE
    batches.register(store, batches.Batch(name=name, folder=folder, kind=kind))
    question = _for_batch(question, name)
    results = ask.run(question, rooms.for_batch(curation_stages(), kind))
    answer = curation_numbers(store, name)
    answer["computed"] = sum(r.computed for r in results)
    answer["reused"] = sum(not r.computed for r in results)
    answer["cpu_s"] = round(sum(float(r.metrics.get("cpu_s", 0)) for r in results if r.computed), 2)
    text = _curation_text(answer)
    return Answer(answer, text, question.command("caption") + " --batch " + name)


def caption(question: Ask, args: argparse.Namespace) -> Answer:
    """Captions of what was kept, with the captioner trained first if there is none."""
    return run_named(question, ["captions", "caption_scores", "caption_claims"], "manifest freeze", with_models=True)


def captioner_evaluate(question: Ask, args: argparse.Namespace) -> Answer:
    """Our own captioner on pairs that it was not trained on."""
    from captioner.train.examine import examine
    from captioner.written import as_lines, texts

    store = question.readable()
    found = examine(store)
    of_texts = texts(store)
    lines = [
        f"{name:<12} {f['accuracy']:.3f} [{f['low']:.3f}, {f['high']:.3f}]  n {f['n']}"
        for name, f in found["fields"].items()
    ]
    claims, wrong = found["claims"], found["hallucinated_caption_rate"]
    lines += [
        f"claims       precision {claims['precision']:.3f}, recall {claims['recall']:.3f}, F1 {claims['f1']:.3f}",
        "captions with a wrong claim:",
    ]
    for name, rate in (("all", wrong), ("one subject", wrong["one_subject"]), ("several", wrong["several_subjects"])):
        lines.append(f"  {name:<11} {rate['rate']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]  n {rate['n']}")
    lines += as_lines(of_texts)
    return Answer({**found, "texts": of_texts}, "\n".join(lines), question.command("caption"))


def manifest_freeze(question: Ask, args: argparse.Namespace) -> Answer:
    """An immutable snapshot of what to train on."""
    return run_named(question, ["manifest"], "train autoencoder")


def train(question: Ask, args: argparse.Namespace) -> Answer:
    """The autoencoder, or latents and the DiT on them."""
    if args.what == "autoencoder":
        return run_named(question, ["autoencoder"], "train dit")
    chosen = [f"trainer.dit.{k}={v}" for k, v in (("manifest", args.manifest), ("where", args.where)) if v]
    if chosen:
        question = dataclasses.replace(question, settings=(*question.settings, *chosen), named_recipe=True)
    if args.dry_run:
        return _forecast(question)
    return run_named(question, ["latents", "dit"], "evaluate")


def _forecast(question: Ask) -> Answer:
    from trainer.config import DitSettings
    from trainer.dit_stage import selected
    from trainer.dry_run import as_text, forecast

    config = question.config().trainer
    settings = DitSettings(dit=config.dit, shape=config.shape, launch=config.launch)
    found = forecast(*selected(question.readable(), settings), settings)
    return Answer(
        {**dataclasses.asdict(found), "reasons": found.reasons}, as_text(found), question.command("train dit")
    )


def evaluate(question: Ask, args: argparse.Namespace) -> Answer:
    """Samples of the fixed prompts, and everything that can be measured."""
    run_named(question, ["prompts", "samples", "evaluation"], "report")
    store = question.store
    rows = store.read(EVALUATION).to_pylist() if store.committed(EVALUATION) else []
    groups: dict[str, dict[str, Any]] = {"attributes": {}, "control": {}}
    for row in rows:
        if row["metric"] == "accuracy":  # also (control_)(un)seen_<level>: combinations that training shows or does not
            group = {"generated": "attributes"}.get(row["group"], row["group"])
            groups.setdefault(group, {})[row["name"]] = {
                "accuracy": row["value"],
                **{k: row[k] for k in ("low", "high", "n", "chance")},
            }
    return Answer(groups, _measures_text(rows), question.command("report"))


def report(question: Ask, args: argparse.Namespace) -> Answer:
    """One HTML page on everything that was made."""
    store = question.readable()
    if args.decode_floor:
        floor.record(store, [question.batch] if question.batch else store.batches(VIDEOS), say=ask.say)
    results = ask.run(question, [rooms.named("report")])
    path = question.store.at(str(results[0].metrics.get("page", "report/report.html")))
    return Answer({"path": path, "computed": results[0].computed}, path, question.command("ui"))


def check_folder(folder: str) -> str:
    """An existing local folder that holds files, or a URL; absolute.

    Raises:
        FootageError: Says what is wrong with it.
    """
    if "://" in folder:
        store = Store(folder)
        if not store.fs.glob(posixpath.join(store.path, "**")):
            raise FootageError(f"footage folder {folder} is missing or empty")
        return folder
    full = os.path.abspath(os.path.expanduser(folder))
    if not os.path.exists(full):
        raise FootageError(f"footage folder {folder} does not exist")
    if not os.path.isdir(full):
        raise FootageError(f"{folder} is a file; name the folder that holds it")
    if not any(files for _, _, files in os.walk(full)):
        raise FootageError(f"footage folder {folder} holds no files")
    return full


def batch_name(folder: str) -> str:
    """A batch's name out of its folder's."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", posixpath.basename(folder.rstrip("/"))).strip("-._")
    return name[:100] or "footage"


def curation_stages() -> list[Placed]:
    """What a batch goes through before captions, with the unpartitioned stages it needs."""
    known = rooms.all_stages()
    captioned = {"captions"}
    for p in known:
        if captioned & set(p.after):
            captioned.add(p.name)
    targets = [p for p in known if p.room == "curation" and p.stage.partitioned and p.name not in captioned]
    return with_ancestors(targets, known)


def curation_numbers(store: Store, batch: str) -> dict[str, Any]:
    """What became of a batch's videos and clips."""

    def count(table: Any, column: str) -> Counter[str]:
        rows = store.read(table, batch=batch, columns=[column])[column].to_pylist()
        return Counter(r for row in rows for r in (row if isinstance(row, list) else [row]))

    passes = store.read(SCANS, batch=batch, columns=["decode_passes"])["decode_passes"].to_pylist()
    chosen = store.read(SELECTIONS, batch=batch, columns=["verdict", "reasons"]).to_pylist()
    return {
        "videos": dict(count(VIDEOS, "status")),
        "clips": dict(Counter(row["verdict"] for row in chosen)),
        "rejected_by": dict(Counter(r for row in chosen if row["verdict"] == "reject" for r in row["reasons"])),
        "decode_passes_per_source": max(passes, default=0),
        "spans": store.read(CLIPS, batch=batch, columns=["clip_id"]).num_rows,
    }


def _curation_text(answer: dict[str, Any]) -> str:
    def pairs(found: dict[str, int]) -> str:
        return ", ".join(f"{k} {v}" for k, v in sorted(found.items(), key=lambda kv: -kv[1])) or "none"

    return "\n".join(
        [
            f"videos       {pairs(answer['videos'])}",
            f"clips        {pairs(answer['clips'])}",
            f"rejected by  {pairs(answer['rejected_by'])}",
            f"stages       {answer['computed']} computed, {answer['reused']} reused; {answer['cpu_s']} CPU s",
        ]
    )


def _measures_text(rows: Sequence[dict[str, Any]]) -> str:
    width = max([12, *(len(r["group"]) for r in rows)])
    lines = [f"{'group':<{width}} {'name':<20} {'metric':<12} {'value':>8}  95 % interval     n  chance"]
    for r in rows:
        value = "" if r["value"] is None else f"{r['value']:.3f}"
        interval = f"{r['low']:.3f} to {r['high']:.3f}" if r["low"] is not None and r["high"] is not None else ""
        chance = "" if r["chance"] is None else f"{r['chance']:.3f}"
        lines.append(
            f"{r['group']:<{width}} {r['name']:<20} {r['metric']:<12} {value:>8}  {interval:<15} {r['n']:>3}  {chance}"
        )
    return "\n".join(lines)


def run_named(question: Ask, names: Sequence[str], then: str, *, with_models: bool = False) -> Answer:
    known = rooms.all_stages()
    targets = [p for p in known if p.name in names]
    missing = sorted(set(names) - {p.name for p in targets})
    if missing:
        raise UsageError(f"this installation has no stage {', '.join(missing)}")
    if with_models:
        closed = with_ancestors(targets, known)
        targets = [p for p in closed if p in targets or not p.stage.partitioned]
    results = ask.run(question, targets)
    return Answer(
        {"stages": [_as_json(r) for r in results]},
        "\n".join(ask.line(r) for r in results),
        question.command(then),
    )


def _for_batch(question: Ask, name: str) -> Ask:
    return dataclasses.replace(question, batch=name)


def _as_json(result: Result) -> dict[str, Any]:
    return dataclasses.asdict(result)
