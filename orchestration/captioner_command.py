"""`dailies captioner train`: pairs from wherever they come, and the captioner trained on them.

Files, people's captions and a teacher's are checked and taken into the root as lists first (captioner/pairs/); the
stages `pairs` and `captioner_model` then run as ever.  Which lists a root's captioner learns from is remembered with
its settings, so that the same command without them goes on where it stopped.
"""

import argparse
import dataclasses
import os
from collections import Counter
from collections.abc import Sequence

from orchestration import ask
from orchestration.ask import Answer, Ask
from orchestration.run_commands import run_named
from pipelines.execute import run_stage
from schemas.captions import Listed
from schemas.checkpoints import CAPTIONER_CHECKPOINT, Checkpoint
from schemas.errors import MissingTable, UsageError
from schemas.labels import WRITTEN
from schemas.table import to_rows

_SHOWN = 5
"""Left-out rows that are printed."""


def train(question: Ask, args: argparse.Namespace) -> Answer:
    """Take pairs in if any are named, bring table `pairs` up to date, and train."""
    named = bool(args.pairs or args.labels or args.teacher)
    if args.with_synthetic and not named:
        raise UsageError("--with-synthetic goes with --pairs, --labels or --teacher; alone it is the default")
    found: list[tuple[str, list[Listed]]] = []
    if named:
        found = _take(question, args)
        lists = ",".join(name for name, _ in found)
        chosen = (
            f"captioner.pairs.lists={lists}",
            f"captioner.pairs.synthetic={'yes' if args.with_synthetic else 'no'}",
        )
        question = dataclasses.replace(question, settings=(*question.settings, *chosen), named_recipe=True)
    stages = ["pairs", "captioner_model"]
    if question.config().captioner.pairs.synthetic:
        stages.insert(0, "synthetic_pairs")
    answer = run_named(question, stages, "caption")
    if not named:
        return answer
    taken = [row for _, rows in found for row in rows]
    counted = {"rows": len(taken), "left_out_when_read": sum(bool(r.reason) for r in taken)}
    return dataclasses.replace(answer, json={**answer.json, "pair_files": counted})


def merge(question: Ask, args: argparse.Namespace) -> Answer:
    """The trained adapter and its base as one model on disk."""
    from captioner.train.lora import KIND
    from captioner.train.merge import export_merged

    if os.path.exists(args.to):
        raise UsageError(f"{args.to} exists already; name a folder that does not")
    store = question.readable()
    if store.committed(CAPTIONER_CHECKPOINT) is None:
        raise MissingTable(f"no captioner was trained under {store.root}: run `{question.command('captioner train')}`")
    row = to_rows(store.read(CAPTIONER_CHECKPOINT), Checkpoint)[0]
    if row.kind != KIND:
        raise UsageError(f"the trained checkpoint is a `{row.kind}`, not an adapter: there is nothing to merge")
    config = dataclasses.replace(question.config().captioner.vlm, adapter=store.fetch(row.path))
    base = export_merged(config, args.to)
    found = {"path": os.path.abspath(args.to), "base": base, "adapter": row.digest}
    return Answer(found, f"{args.to}: {base} with adapter {row.digest} merged in", f"vllm serve {args.to}")


def _take(question: Ask, args: argparse.Namespace) -> list[tuple[str, list[Listed]]]:
    from captioner.pairs.listing import take_file, take_rows

    store = question.writable()
    found = [take_file(store, path) for path in args.pairs or ()]
    if args.labels:
        if not store.exists(*WRITTEN):
            raise UsageError(f"nobody wrote a caption under {store.root}: run `{question.command('label --captions')}`")
        found.append(take_rows(store, _written(store.fetch(*WRITTEN)), "the captions that people wrote"))
    if args.teacher:
        found.append(take_rows(store, _taught(question, args.teacher), f"teacher {args.teacher}"))
    for _, rows in found:
        _say(rows)
    return found


def _written(path: str) -> list[Listed]:
    """The last caption that was written of each clip."""
    from captioner.pairs.read import check_rows, read_rows

    last = {str(row.get("clip_id")): row for row in read_rows(path)}
    standing = [row for row in last.values() if row.get("short") or row.get("dense")]  # else it was taken back
    return list(check_rows(os.path.basename(path), standing, "labels"))


def _taught(question: Ask, backend: str) -> list[Listed]:
    from captioner.pairs.teacher import TEACHER_CAPTIONS, listed, teacher_stage
    from schemas import batches

    stage, store, config = teacher_stage(backend), question.writable(), question.config().captioner
    names = [question.batch] if question.batch else batches.names(store)
    if not names:
        raise UsageError(f"no footage under {store.root} to teach from: run `{question.command('curate FOLDER')}`")
    captions = []
    for batch in names:
        result = run_stage(stage, store, config, batch=batch, executor=ask.workers_of(question))
        ask.say(ask.line(result))
        captions += store.read(TEACHER_CAPTIONS, batch=batch).to_pylist()
    return listed(captions)


def _say(rows: Sequence[Listed]) -> None:
    bad = [row for row in rows if row.reason]
    ask.say(f"{rows[0].file}: {len(rows) - len(bad)} of {len(rows)} rows give a pair")
    for row in bad[:_SHOWN]:
        ask.say(f"  row {row.row}, column `{row.column_name}`: {row.reason}")
    if len(bad) > _SHOWN:
        by_column = ", ".join(f"{c} {n}" for c, n in Counter(r.column_name for r in bad).most_common())
        ask.say(f"  ... {len(bad)} left out in all, by column: {by_column}; all are in table `pairs_left_out`")
