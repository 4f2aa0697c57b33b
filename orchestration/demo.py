"""`dailies demo`: one real Dagster run over the whole asset graph, on Ray, from footage to generated videos.

One run holds everything: the assets of the batch (its partition) and those made once, so that the models
that need no footage train beside the curation.  What is there already is not computed again; if all of it
is, nothing is even started.  Killed at any moment and started again, it first sweeps what was left: the Ray
head of this root, jobs of its dead runs, and those runs themselves, which Dagster would show as running for
ever.
"""

import contextlib
import dataclasses
import fcntl
import os
import time
from collections.abc import Iterator, Sequence

from orchestration import ask, rooms, run_commands, services
from orchestration.ask import Answer, Ask, say
from orchestration.rooms import Placed
from orchestration.summary import numbers, table
from pipelines.execute import reusable
from schemas import batches
from schemas.errors import MissingTable, UsageError, WorldError
from schemas.store import Store

BATCH = "demo"


def run(question: Ask, *, footage: str | None, through_dagster: bool) -> Answer:
    """Bring everything under the root up to date and say what came of it."""
    folder = run_commands.check_folder(footage) if footage else None
    if footage and not question.named_recipe and question.recipe == "demo":
        question = dataclasses.replace(question, recipe="footage", named_recipe=True)
        question.config()
    store = question.writable()
    began = time.monotonic()
    with _alone(question.root):
        batch = _register(store, question, folder)
        placed = rooms.for_batch(rooms.all_stages(), batch.kind)
        before = current(question, placed, batch.name)
        if len(before) == len(placed):
            say(f"nothing to do: {len(placed)} of {len(placed)} stages reused")
        elif through_dagster:
            _through_dagster(question, placed, batch)
        else:
            _in_this_process(question, placed, batch)
    found = numbers(store, placed, batch)
    found["computed"], found["reused"] = len(placed) - len(before), len(before)
    found["seconds"] = round(time.monotonic() - began, 1)
    return Answer(found, table(found), f"make ui{_root_for_make(question.root)}")


def current(question: Ask, placed: Sequence[Placed], batch: str) -> list[str]:
    """Stages whose tables are what they would be made to be now; in order, so up to date to the root."""
    store, config = question.store, question.config()
    fresh: list[str] = []
    for p in placed:
        if not set(p.after) & {q.name for q in placed} <= set(fresh):
            continue
        with contextlib.suppress(MissingTable):
            if reusable(p.stage, store, p.config(config), batch=batch if p.stage.partitioned else None):
                fresh.append(p.name)
    return fresh


def _register(store: Store, question: Ask, folder: str | None) -> batches.Batch:
    if folder is None:
        name, kind = question.batch or BATCH, batches.SYNTHETIC
        folder = store.at("incoming", name)
    else:
        name, kind = question.batch or run_commands.batch_name(folder), batches.FOOTAGE
    others = [b for b in batches.names(store) if b != name]
    if others:
        say(f"this root also holds batches {', '.join(others)}; the manifest takes them in")
    return batches.register(store, batches.Batch(name=name, folder=folder, kind=kind))


def _in_this_process(question: Ask, placed: Sequence[Placed], batch: batches.Batch) -> None:
    started = False
    if question.executor == "ray" and services.read(question.root).ray is None:
        services.up(question.root, by="demo", say=say)
        started = True
    try:
        ask.run(dataclasses.replace(question, batch=batch.name), placed)
    finally:
        if started:
            services.down(question.root, only_ray=True)


def _through_dagster(question: Ask, placed: Sequence[Placed], batch: batches.Batch) -> None:
    os.environ.update(services.dagster_env(question.root))
    os.environ["DAILIES_EXECUTOR"] = question.executor
    on_ray = question.executor == "ray"
    if on_ray:
        head = services.up(question.root, by="demo", say=say)
        # before anything imports Ray, which may keep the first token that it finds
        os.environ.update({k: v for k, v in head.env().items() if k.startswith("RAY_AUTH")})
    from orchestration.graph_run import run_graph

    try:
        failed = run_graph(question, placed, batch.name, on_ray)
    finally:
        if on_ray and services.read(question.root).by == "demo":
            services.down(question.root, only_ray=True)
    if failed:
        log = services.dagster_home(question.root)
        raise WorldError(f"{failed}\nThe run and its logs are kept in {log}; `dailies ui` shows them")


@contextlib.contextmanager
def _alone(root: str) -> Iterator[None]:
    """One demo per root; the other one's pid is in the lock."""
    folder = services.folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "demo.lock", "a+") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            f.seek(0)
            raise UsageError(f"another `dailies demo` (process {f.read().strip() or '?'}) runs on root {root}") from e
        f.truncate(0)
        f.write(str(os.getpid()))
        f.flush()
        yield


def _root_for_make(root: str) -> str:
    return "" if root == ask.DEFAULT_ROOT else f" ROOT={root}"
