"""`Context.each`: a function over items, where what is finished stays finished and one bad item costs one row.

Every finished item is kept as Parquet parts named by content, config and code.  An item that fails gets the
rows of `on_error`; a group that fails is halved until the poisonous item is alone and the others are done;
what hung or killed its worker is put in quarantine (`pipelines.running.quarantine`).  Parts are looked for before
anything runs, so that a killed stage resumes where it was.

Cost: one small file per item and table.
"""

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipelines.running import quarantine
from pipelines.running.executors import Executor, Progress
from pipelines.running.items import Deadline, Failure
from schemas.errors import UsageError
from schemas.ids import digest
from schemas.store import Store
from schemas.table import Table

Rows = dict[str, pa.Table]


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """What `Context.each` was asked; see there."""

    fn: Callable[..., Any]
    key: Callable[[Any], str]
    outputs: tuple[Table, ...]
    on_error: Callable[[Any, Failure], Mapping[str, pa.Table]]
    loaded: bool
    label: Callable[[Any], str]
    deadline: Deadline | None
    split: Callable[[Any], Sequence[Any]] | None
    keep: Callable[[Mapping[str, pa.Table]], bool] = lambda rows: True


class OnlyDone(Exception):
    """Ends a stage that was asked for one item; carries its rows and its failures."""

    def __init__(self, rows: list[Rows], failures: list[Failure]) -> None:
        super().__init__("one item")
        self.rows, self.failures = rows, failures


@dataclasses.dataclass(slots=True)
class ItemsMap:
    """One stage's map over its items."""

    store: Store
    stage: str
    batch: str | None
    executor: Executor
    made_by: str
    force: bool
    only: str | None
    cpu_s: float = 0.0

    def run(self, work: Work, items: Sequence[Any], unit: str) -> Rows:
        """All rows by table, in the items' order.

        Raises:
            OnlyDone: If one item was asked for.
        """
        if self.only is not None:
            items = chosen(items, work.label, self.only)
        progress = Progress(self.stage, len(items), unit)
        done, failures = self._map(work, items, progress)
        progress.close()
        if self.only is not None:
            raise OnlyDone(done, failures)
        return {t.name: pa.concat_tables([d[t.name] for d in done]) if items else t.empty() for t in work.outputs}

    def _map(
        self, work: Work, items: Sequence[Any], progress: Progress | None = None
    ) -> tuple[list[Rows], list[Failure]]:
        """Rows of each item, and what failed; without `progress` the items are halves of others."""
        names = [digest(work.key(item), self.made_by) for item in items]
        done = {i: rows for i, name in enumerate(names) if (rows := self._finished(work, name)) is not None}
        if done and progress:
            progress.advance(len(done), f"{len(done)} finished earlier")
        failures: list[Failure] = []
        groups: dict[int, Sequence[Any]] = {}
        for index, result in self._results(work, items, names, [i for i in range(len(items)) if i not in done]):
            if isinstance(result, Failure) and work.split and len(pieces := work.split(items[index])) > 1:
                groups[index] = pieces
                continue
            if isinstance(result, Failure):
                failures.append(result)
                done[index] = self._failed(work, names[index], items[index], result)
            else:
                done[index] = {t.name: t.conform(result[t.name]) for t in work.outputs}
                for table, rows in done[index].items() if work.keep(done[index]) else ():
                    self.store.write_part(self._part(names[index], table), rows)
            if progress:
                progress.advance()
        if groups:  # all halves in one go: a model is loaded once for them
            parts, more = self._map(work, [piece for pieces in groups.values() for piece in pieces])
            failures += more
            rest = iter(parts)
            for index, pieces in groups.items():
                mine = [next(rest) for _ in pieces]
                done[index] = {t.name: pa.concat_tables([p[t.name] for p in mine]) for t in work.outputs}
                if progress:
                    progress.advance()
        return [done[i] for i in range(len(items))], failures

    def _failed(self, work: Work, name: str, item: Any, failure: Failure) -> Rows:
        """An item's rows of failure; one that hung or killed its worker is written down."""
        if failure.is_poison and self.only is None:
            failure = quarantine.write(self.store, self.stage, name, self.batch, work.label(item), failure)
        rows = work.on_error(item, failure)
        return {t.name: t.conform(rows[t.name]) for t in work.outputs}

    def _results(
        self, work: Work, items: Sequence[Any], names: Sequence[str], todo: Sequence[int]
    ) -> Iterator[tuple[int, Any]]:
        """Results or failures of the items that are not finished, as they come; quarantined ones first."""
        tried = []
        for index in todo:
            all_again = self.force or self.only is not None
            known = None if all_again else quarantine.read(self.store, self.stage, names[index])
            if known is None:
                tried.append(index)
            else:
                yield index, known
        given = _Chosen(items, tried)
        if work.loaded:
            found = self.executor.map_loaded(work.fn, given)
        else:
            found = self.executor.map(work.fn, given, work.deadline)
        for position, result, cpu_s in found:
            self.cpu_s += cpu_s
            yield tried[position], result

    def _part(self, item: str, table: str) -> str:
        return self.store.part(self.stage, f"{item}.{table}")

    def _finished(self, work: Work, name: str) -> Rows | None:
        rows: Rows = {}
        for table in work.outputs:
            part = None if self.only is not None else self.store.read_part(self._part(name, table.name))
            if part is None:
                return None
            rows[table.name] = table.grown(part)
        return rows


class _Chosen(Sequence[Any]):
    """Some of the items; those of a sequence that makes its items when they are asked for are not all made at once."""

    def __init__(self, items: Sequence[Any], places: Sequence[int]) -> None:
        self._items, self._places = items, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self._items[i] for i in self._places[at]]
        return self._items[self._places[at]]


def halved(group: Sequence[Any]) -> tuple[Sequence[Any], ...]:
    """For `split`: the halves of an item that is a sequence; nothing if it has one member."""
    middle = len(group) // 2
    return (group[:middle], group[middle:]) if middle else ()


def chosen(items: Sequence[Any], label: Callable[[Any], str], only: str) -> list[Any]:
    """The item of that label, or the one whose label begins so.

    Raises:
        UsageError: If there is none, or more than one.
    """
    labels = [label(item) for item in items]
    exact = [i for i, name in zip(items, labels) if name == only]
    begun = [i for i, name in zip(items, labels) if name.startswith(only)]
    found = exact or begun
    if len(found) == 1:
        return found
    near = [name for name in labels if name.startswith(only)] or difflib.get_close_matches(only, labels) or labels
    what = "several items begin with" if found else "no item is called"
    raise UsageError(f"{what} `{only}`; there are {', '.join(near[:5])}{' ...' if len(near) > 5 else ''}")
