"""Stages: functions from tables to new tables, that run only when something changed and resume where they stopped.

A *stage* is a function from tables to new tables.  `run_stage` asks whether its outputs were made from
the same inputs, config and code already (then nothing runs), runs it otherwise, and commits each output
whole.  Inside a stage, `Context.each` maps a function over items: every finished item is a Parquet part
named by content and config, so that a killed stage resumes where it was; an item that raises, hangs or kills its
worker goes to `on_error` and becomes a row, and those that hang or kill are not tried again until they or the
code change (`pipelines.running.quarantine`).  With `loaded`, a model is loaded once per worker.

Both executors (`pipelines/running/executors.py`) give equal tables: items are pure, results come back in the items'
order, and batches are made by the caller.  Cost: one footer read per input to know that there is nothing to do.
"""

import dataclasses
import json
import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipelines.run_log import RunLog
from pipelines.running import lock
from pipelines.running.each import ItemsMap, OnlyDone, Work, halved
from pipelines.running.executors import Executor, Failure, Local, Progress, Ray, executor
from pipelines.running.items import Deadline
from schemas import batches
from schemas.errors import ConfigError, DamagedTable, MissingTable, UsageError
from schemas.ids import digest
from schemas.store import Commit, Store
from schemas.table import Table

__all__ = [
    "Context", "Executor", "Failure", "Local", "Output", "Progress", "Ray", "Result", "RunLog", "Stage", "Tables",
    "as_json", "executor", "halved", "reusable", "run_only", "run_stage",
]  # fmt: skip

Tables = Mapping[str, pa.Table]


@dataclasses.dataclass(slots=True)
class Context:
    """What a stage may use: its tables, its settings, its executor."""

    stage: "Stage"
    store: Store
    settings: Any
    batch: batches.Batch | None
    executor: Executor
    made_by: str
    cpu_s: float = 0.0
    force: bool = False
    """Quarantined items are tried again."""
    only: str | None = None
    """Run this item alone and commit nothing."""

    def read(self, table: Table, columns: list[str] | None = None) -> pa.Table:
        """An input: of this batch in a stage run per batch, of all batches otherwise."""
        if table not in self.stage.reads + self.stage.optional:
            raise ValueError(f"stage `{self.stage.name}` does not declare that it reads `{table.name}`")
        batch = self.batch.name if self.batch and table.partitioned else None
        return self.store.read(table, batch=batch, columns=columns)

    def read_optional(self, table: Table, columns: list[str] | None = None) -> pa.Table | None:
        """An input that may never have been made."""
        try:
            return self.read(table, columns)
        except MissingTable:
            return None

    def pictures(self, table: Table, rows: Sequence[int], column: str = "jpeg") -> list[Any]:
        """One column's values in some rows of an input of this batch, by their numbers in `read`."""
        if table not in self.stage.reads:
            raise ValueError(f"stage `{self.stage.name}` does not declare that it reads `{table.name}`")
        return self.store.take(table, rows, column, batch=self.batch.name if self.batch else None)

    def each(
        self,
        fn: Callable[..., Any],
        items: Sequence[Any],
        *,
        key: Callable[[Any], str],
        outputs: Sequence[Table],
        on_error: Callable[[Any, Failure], Tables],
        unit: str = "item",
        loaded: bool = False,
        label: Callable[[Any], str] | None = None,
        deadline: Deadline | None = None,
        split: Callable[[Any], Sequence[Any]] | None = None,
        keep: Callable[[Tables], bool] = lambda rows: True,
    ) -> dict[str, pa.Table]:
        """Map `fn` over items, keep each finished item as parts, and return all rows by table.

        Args:
            fn: Item to `{table name: rows}`; picklable.  With `loaded`, a function without arguments that
                loads a model and returns such a function; it is called once per worker.
            key: The item's name by content; config and code version are added here.
            outputs: The tables that `fn` gives rows of, each conforming to its schema.
            on_error: Rows for an item that raised or killed its worker; they are not kept as parts,
                so that the next run tries the item again.
            label: The item's name for people and for `--only`; by default its key.
            deadline: The most seconds that an item may take; a worker that needs longer is killed.
            split: Halves of an item that is a group, or nothing if it is a single one: a group that fails is
                halved until the poisonous one is alone and the others are done.
            keep: Whether an item's rows may be kept for later runs; those that may not are made again.
        """
        work = Work(fn, key, tuple(outputs), on_error, loaded, label or key, deadline, split, keep)
        batch = self.batch.name if self.batch else None
        items_map = ItemsMap(self.store, self.stage.name, batch, self.executor, self.made_by, self.force, self.only)
        try:
            return items_map.run(work, items, unit)
        finally:
            self.cpu_s += items_map.cpu_s


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """What a stage made."""

    tables: Tables
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Numbers (plotted over runs in Dagster) and short texts."""
    pictures: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    """JPEGs under 150 kB, shown in Dagster and in the report."""


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """A function from tables to new tables, and all that decides whether it must run."""

    name: str
    version: int
    reads: tuple[Table, ...]
    writes: tuple[Table, ...]
    run: Callable[[Context], Output]
    settings: Callable[[Any], Any]
    """The part of its package's config that the result depends on."""
    optional: tuple[Table, ...] = ()
    """Inputs that may never have been made."""
    outside: Callable[[Store, batches.Batch | None], Any] | None = None
    """What else the result depends on, such as the files in a folder."""
    doc: str = ""

    @property
    def partitioned(self) -> bool:
        return self.writes[0].partitioned


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """How a stage ended."""

    stage: str
    batch: str | None
    computed: bool
    rows: Mapping[str, int]
    metrics: Mapping[str, Any]
    pictures: Mapping[str, str]
    seconds: float


def run_stage(
    stage: Stage,
    store: Store,
    config: Any,
    *,
    batch: str | None = None,
    executor: Executor | None = None,
    force: bool = False,
) -> Result:
    """Bring a stage's outputs up to date.

    Raises:
        MissingTable: If an input was never made.
        ConfigError: If a batch is named for a stage that has none, or is missing.
        RootBusy: If another process is running this stage for this batch.
    """
    start = time.monotonic()
    standing = _standing(stage, store, config, batch)
    if standing.commits is not None and not force:
        return _result(stage, batch, False, standing.commits, start)
    with lock.alone(store, stage.name, batch):
        return _compute(stage, store, config, batch, executor or Local(), force, start)


def run_only(
    stage: Stage, store: Store, config: Any, only: str, *, batch: str | None = None, executor: Executor | None = None
) -> tuple[dict[str, int], str, float]:
    """Run one item of a stage, whatever was finished or quarantined before, and commit nothing.

    Returns:
        Rows by table, why it failed (empty if it did not), and its seconds.

    Raises:
        UsageError: If no item has that label, or the stage does not work item by item.
    """
    start = time.monotonic()
    standing = _standing(stage, store, config, batch)
    context = Context(stage, store, stage.settings(config), standing.batch, executor or Local(), standing.made_by)
    context.only = only
    try:
        stage.run(context)
    except OnlyDone as done:
        rows = {name: sum(r[name].num_rows for r in done.rows) for name in done.rows[0]}
        return rows, "; ".join(str(f) for f in done.failures), round(time.monotonic() - start, 2)
    raise UsageError(f"stage `{stage.name}` does not work item by item")


def _compute(
    stage: Stage, store: Store, config: Any, batch: str | None, executor: Executor, force: bool, start: float
) -> Result:
    standing = _standing(stage, store, config, batch)  # another run may have ended while we waited for the lock
    if standing.commits is not None and not force:
        return _result(stage, batch, False, standing.commits, start)
    wanted, made_by = standing.wanted, standing.made_by
    context = Context(stage, store, stage.settings(config), standing.batch, executor, made_by, force=force)
    usage = _cpu_s()
    output = stage.run(context)
    cost = {
        "seconds": round(time.monotonic() - start, 2),
        "cpu_s": round(max(context.cpu_s, _cpu_s() - usage), 2),
    }
    pictures = {
        name: store.write_bytes(jpeg, "blobs", "pictures", stage.name, batch or "all", f"{name}.jpg")
        for name, jpeg in output.pictures.items()
    }
    metrics = {**output.metrics, **cost, "pictures": pictures}
    commits = [
        store.commit(t, output.tables[t.name], batch=batch, inputs=wanted, made_by=made_by, metrics=metrics)
        for t in stage.writes
    ]
    return _result(stage, batch, True, commits, start)


@dataclasses.dataclass(frozen=True, slots=True)
class _Standing:
    """How a stage's outputs stand to its inputs."""

    batch: batches.Batch | None
    wanted: str
    """Digest of everything the outputs depend on."""
    made_by: str
    commits: list[Commit] | None
    """What is there, if it was made from just that; None if the stage must run."""


def _standing(stage: Stage, store: Store, config: Any, batch: str | None) -> _Standing:
    if stage.partitioned != (batch is not None):
        need = "needs --batch NAME" if stage.partitioned else "takes no --batch"
        raise ConfigError(f"stage `{stage.name}` {need}")
    footage = batches.get(store, batch) if batch else None
    settings = stage.settings(config)
    inputs, models = _inputs(stage, store, footage)
    wanted = digest(stage.name, stage.version, settings, inputs)
    before = [_intact(store, t, batch) for t in stage.writes]
    commits = [c for c in before if c is not None and c.inputs == wanted]
    made_by = digest(stage.name, stage.version, settings, models)
    return _Standing(footage, wanted, made_by, commits if len(commits) == len(stage.writes) else None)


def reusable(stage: Stage, store: Store, config: Any, *, batch: str | None = None) -> Result | None:
    """What `run_stage` would give without computing anything; None if it would compute.

    Raises:
        MissingTable: If an input was never made.
    """
    start = time.monotonic()
    standing = _standing(stage, store, config, batch)
    return None if standing.commits is None else _result(stage, batch, False, standing.commits, start)


def made_by(stage: Stage, store: Store, config: Any, batch: str | None = None) -> str:
    """What rows would carry as `made_by` if the stage ran now."""
    return _standing(stage, store, config, batch).made_by


def _intact(store: Store, table: Table, batch: str | None) -> Commit | None:
    """What is committed; a damaged file counts as absent, because this stage is what mends it."""
    try:
        return store.committed(table, batch)
    except DamagedTable:
        return None


def _inputs(stage: Stage, store: Store, batch: batches.Batch | None) -> tuple[Any, Any]:
    """Digests of everything read, and of the model weights among it."""
    seen: dict[str, Any] = {}
    for table in stage.reads + stage.optional:
        if table.partitioned:
            names: Iterable[str | None] = [batch.name] if batch else store.batches(table)
        else:
            names = [None]
        found = {b or "": c.content for b in names if (c := store.committed(table, b)) is not None}
        if not found and table in stage.reads:
            where = f" of batch {batch.name}" if batch and table.partitioned else ""
            raise MissingTable(
                f"stage `{stage.name}` reads table `{table.name}`{where}, which was never made under {store.root}: "
                "run the stage that makes it first (`dailies stage --list` shows which)"
            )
        seen[table.name] = found
    models = {name: found for name, found in seen.items() if name.endswith("_checkpoint")}
    outside = stage.outside(store, batch) if stage.outside else None
    return {"tables": seen, "outside": outside, "kind": batch.kind if batch else None}, models


def _result(stage: Stage, batch: str | None, computed: bool, commits: Sequence[Commit], start: float) -> Result:
    metrics = dict(commits[0].metrics)
    pictures = metrics.pop("pictures", {})
    return Result(
        stage=stage.name,
        batch=batch,
        computed=computed,
        rows={c.table: c.rows for c in commits},
        metrics=metrics,
        pictures=pictures,
        seconds=round(time.monotonic() - start, 2),
    )


def _cpu_s() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def as_json(result: Result) -> str:
    """One line that a person or a program can read."""
    return json.dumps(dataclasses.asdict(result), sort_keys=True, default=str)
