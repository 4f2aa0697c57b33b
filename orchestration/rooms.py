"""All stages of all rooms in one list, each with the part of the recipe that steers it, in an order that works.

The order follows from the tables: who reads a table comes after who writes it.  Two stages meet through
files instead of a table (`footage` renders what `videos` probes); `_AFTER` says so.  Cost: the rooms' stage
lists are imported on first use; none of them may import torch or ray at module level.
"""

import dataclasses
import functools
import graphlib
import importlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipelines.execute import Stage
from schemas import batches
from schemas.errors import ConfigError
from schemas.settings import pick
from schemas.store import Store

_LISTS = (
    ("curation", "pipelines.stages"),
    ("captioner", "captioner.stages"),
    ("trainer", "trainer.stages"),
    ("report", "pipelines.report.stage"),
)
_CONFIG = {"curation": "curation", "captioner": "captioner", "trainer": "trainer", "report": "curation"}
_AFTER = {"videos": ("footage",)}
OTHER_ROOMS = "DAILIES_ROOMS"
"""Environment variable that names a module whose `PLACED` and `RECIPES` take the place of ours (tests, own graphs)."""
_COST = {
    "captioner_model": 30, "dit": 20, "autoencoder": 12, "footage": 6, "clip_model": 5, "synthetic_pairs": 4, "scan": 4,
    "expander": 3,
}  # fmt: skip
"""About how long a stage takes in the demo, in units of a short one; decides nothing but which starts first."""
SYNTHETIC_ONLY = "footage"
"""The stage that renders footage; a batch of real footage leaves it out."""


@dataclasses.dataclass(frozen=True, slots=True)
class Placed:
    """A stage and the room it belongs to."""

    stage: Stage
    room: str
    config: Callable[[Any], Any]
    """The room's config out of the recipe."""
    after: tuple[str, ...] = ()
    """Stages that must come before it: who makes what it reads, and `_AFTER`."""

    @property
    def name(self) -> str:
        return self.stage.name


def _field(name: str) -> Callable[[Any], Any]:
    return lambda recipe: getattr(recipe, name)


def place(
    stages: Iterable[tuple[str, Stage, Callable[[Any], Any]]], after: Mapping[str, Sequence[str]] = _AFTER
) -> tuple[Placed, ...]:
    """Order `(room, stage, config of the recipe)` so that every table is made before it is read."""
    given = {stage.name: (room, stage, config) for room, stage, config in stages}
    maker = {table.name: stage.name for _, stage, _ in given.values() for table in stage.writes}
    graph: dict[str, list[str]] = {}
    for name, (_, stage, _) in given.items():
        read = [maker[t.name] for t in stage.reads + stage.optional if t.name in maker]
        extra = [n for n in after.get(name, ()) if n in given]
        graph[name] = sorted({n for n in (*read, *extra) if n != name})
    position = {name: i for i, name in enumerate(given)}
    sorter = graphlib.TopologicalSorter(graph)
    sorter.prepare()
    order: list[str] = []
    while sorter.is_active():  # among those that are ready, the rooms' own order
        ready = sorted(sorter.get_ready(), key=position.__getitem__)
        order += ready
        sorter.done(*ready)
    return tuple(
        Placed(given[n][1], given[n][0], given[n][2], tuple(sorted(graph[n], key=position.__getitem__))) for n in order
    )


def all_stages() -> tuple[Placed, ...]:
    """Every stage of every room, in an order that works."""
    return _all_stages(os.environ.get(OTHER_ROOMS, ""))


@functools.cache
def _all_stages(other: str) -> tuple[Placed, ...]:
    if other:
        return importlib.import_module(other).PLACED  # type: ignore[no-any-return]
    found = []
    for room, module in _LISTS:
        for stage in importlib.import_module(module).STAGES:
            found.append((room, stage, _field(_CONFIG[room])))
    return place(found)


def named(name: str) -> Placed:
    """The stage of that name, or an error with the nearest name."""
    return pick("stage", name, {p.name: p for p in all_stages()})  # type: ignore[no-any-return]


def for_batch(placed: Iterable[Placed], kind: str) -> tuple[Placed, ...]:
    """Stages that apply to a batch of that kind: real footage is not rendered."""
    return tuple(p for p in placed if kind == batches.SYNTHETIC or p.name != SYNTHETIC_ONLY)


def of_room(room: str) -> tuple[Placed, ...]:
    return tuple(p for p in all_stages() if p.room == room)


def with_ancestors(placed: Sequence[Placed], known: Sequence[Placed]) -> list[Placed]:
    """Stages and everything that must come before them, in order."""
    wanted = {p.name for p in placed}
    for p in reversed(known):
        if p.name in wanted:
            wanted.update(p.after)
    return [p for p in known if p.name in wanted]


def chain_lengths(placed: Sequence[Placed]) -> dict[str, int]:
    """How long the longest chain is that each stage heads, itself included: what heads the longest starts first."""
    found = {p.name: _COST.get(p.name, 1) for p in placed}
    for p in reversed(placed):  # those that come later are known by now
        for before in p.after:
            if before in found:
                found[before] = max(found[before], found[p.name] + _COST.get(before, 1))
    return found


def units(placed: Iterable[Placed], store: Store, batch: str | None = None) -> list[tuple[Placed, str | None]]:
    """Each stage with each batch it has to be run for (None where a stage is run once).

    Args:
        batch: Only this batch; all registered ones otherwise.
    """
    names = [batch] if batch else batches.names(store)
    found: list[tuple[Placed, str | None]] = []
    for p in placed:
        if not p.stage.partitioned:
            found.append((p, None))
            continue
        if not names:
            raise ConfigError(f"no batch under {store.root}: register one with `dailies curate FOLDER`")
        found += [(p, n) for n in names if for_batch([p], batches.get(store, n).kind)]
    return found
