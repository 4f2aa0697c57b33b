"""What every command is asked and answers: the common options, resolved once, and one answer in two forms."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from orchestration import ray_jobs, recipes, rooms
from orchestration.rooms import Placed
from pipelines.execute import Executor, Result, executor, run_stage
from schemas import batches
from schemas.errors import UsageError
from schemas.store import Store

DEFAULT_ROOT = "runs/demo"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a command found: `json` for programs, `text` for people, and what to do next."""

    json: Mapping[str, Any]
    text: str = ""
    next: str = ""
    exit_code: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """The common options."""

    root: str
    recipe: str
    settings: tuple[str, ...]
    executor: str = "local"
    workers: int | None = None
    batch: str | None = None
    json: bool = False
    named_recipe: bool = False
    """The user named a recipe or a setting; otherwise they are those the root was made with."""

    @property
    def store(self) -> Store:
        return Store(self.root)

    def writable(self) -> Store:
        """The root, made if need be.

        Raises:
            RootError: If it cannot be written.
        """
        store = Store(self.root).create()
        if self.named_recipe or recipes.remembered(self.root)[0] is None:
            recipes.remember(store, self.recipe, self.settings)
        return store

    def readable(self) -> Store:
        """The root, which must hold tables."""
        store = Store(self.root)
        if not store.exists("tables"):
            raise UsageError(f"root {store.root} holds no tables; name another with --root, or run `dailies demo`")
        return store

    def config(self) -> recipes.Recipe:
        return recipes.recipe(self.recipe, self.settings)

    def command(self, text: str) -> str:
        """A command on this root, as a person would type it."""
        return f"dailies {text}" + ("" if self.root == DEFAULT_ROOT else f" --root {self.root}")


def say(text: str) -> None:
    """Progress, to standard error."""
    print(text, file=sys.stderr, flush=True)


def from_arguments(args: argparse.Namespace) -> Ask:
    """Resolve the common options; a wrong recipe or setting fails here."""
    root = args.root or os.environ.get("DAILIES_ROOT") or DEFAULT_ROOT
    known, known_settings = (None, ()) if args.recipe else recipes.remembered(root)
    settings = (*known_settings, *(args.set or ()))
    ask = Ask(
        root=root,
        recipe=args.recipe or known or "demo",
        settings=settings,
        executor=args.executor or getattr(args, "usual_executor", "local"),
        workers=args.workers,
        batch=args.batch,
        json=args.json,
        named_recipe=bool(args.recipe or args.set),
    )
    executor(ask.executor, ask.workers)
    ask.config()
    return ask


def line(result: Result) -> str:
    """One stage's end in one line."""
    where = f"{result.stage} [{result.batch}]" if result.batch else result.stage
    rows = ", ".join(f"{name} {count}" for name, count in result.rows.items())
    if len(rows) > 110:
        rows = f"{len(result.rows)} tables, {sum(result.rows.values())} rows"
    how = f"{result.seconds:.1f} s" if result.computed else "reused"
    return f"{where:<28} {how:>9}  {rows}"


def run(ask: Ask, placed: Iterable[Placed], *, force: bool = False) -> list[Result]:
    """Bring stages up to date, each for the asked batch or for all, in order."""
    store, config, workers = ask.writable(), ask.config(), workers_of(ask)
    results = []
    for p, batch in rooms.units(placed, store, ask.batch):
        result = run_stage(p.stage, store, p.config(config), batch=batch, executor=workers, force=force)
        say(line(result))
        results.append(result)
    return results


def workers_of(ask: Ask) -> Executor:
    """The executor that was asked for, on this root's Ray if there is one."""
    if ask.executor == "ray" and "RAY_ADDRESS" not in os.environ:
        os.environ.update(ray_jobs.jobs_environment(ask.root))
    return executor(ask.executor, ask.workers)


def in_every_batch(ask: Ask, table: Any) -> list[str]:
    """Batches of the asked ones that have a table."""
    store = ask.store
    return [b for b in ([ask.batch] if ask.batch else batches.names(store)) if store.committed(table, b)]
