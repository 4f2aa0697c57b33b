"""The command `selftest`: this install on footage whose truth is known."""

import argparse
import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator

from orchestration.ask import Answer, Ask, line, say, workers_of
from pipelines import selftest
from schemas import batches
from schemas.errors import UsageError
from schemas.store import Store


def run(question: Ask, args: argparse.Namespace) -> Answer:
    """Render, curate, count, on all CPUs; exit code 1 where a mark is missed."""
    if not args.root:  # what a demo's root was made with is no part of this
        question = dataclasses.replace(question, recipe=args.recipe or "demo", settings=tuple(args.set or ()))
    if args.scale <= 0:
        raise UsageError(f"--scale is above 0, got {args.scale:g}")
    seed = selftest.SEED if args.seed is None else args.seed
    config = question.config().curation
    with _root(args.root) as store:
        others = [name for name in batches.names(store) if name != selftest.BATCH]
        if others:
            raise UsageError(f"root {store.root} holds other footage ({', '.join(others)}); name an empty one")
        workers = workers_of(dataclasses.replace(question, root=store.root, workers=question.workers or os.cpu_count()))
        tallies = selftest.run(store, config, seed, args.scale, workers, lambda result: say(line(result)))
    missed = selftest.below_marks(tallies)
    text = selftest.as_text(tallies) + "".join(f"\nmissed  {m}" for m in missed)
    after = f"dailies report --root {args.root}" if args.root else "dailies curate FOLDER"
    return Answer(selftest.as_json(seed, tallies), text, after, 1 if missed else 0)


@contextlib.contextmanager
def _root(root: str | None) -> Iterator[Store]:
    """The named root, or one that is gone afterwards."""
    if root:
        yield Store(root).create()
        return
    with tempfile.TemporaryDirectory(prefix="dailies-selftest-") as folder:
        yield Store(folder).create()
