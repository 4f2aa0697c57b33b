"""Stages, and how their work is run: in this process, or on Ray.  One of three files that know Ray.

A *stage* is a function from tables to new tables.  `run_stage` asks whether its outputs were made from
the same inputs, config and code already (then nothing runs), runs it otherwise, and commits each output
whole.  Inside a stage, `Context.each` maps a function over items: every finished item is a Parquet part
named by content and config, so that a killed stage resumes where it was; an item that raises or kills its
worker goes to `on_error` and becomes a row.  With `loaded`, a model is loaded once per worker.

Both executors give equal tables: items are pure, results come back in the items' order, and batches are
made by the caller.  Cost: one footer read per input to know that there is nothing to do; on Ray about
2 s for the first task.
"""

import dataclasses
import json
import logging
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa
from tqdm import tqdm

from schemas import batches
from schemas.errors import ConfigError, MissingTable
from schemas.ids import digest
from schemas.store import Commit, Store
from schemas.table import Table

Tables = Mapping[str, pa.Table]
_PROGRESS_EVERY_S = 10.0


class Progress:
    """A bar on a terminal, a line every ten seconds elsewhere (logs, Dagster)."""

    def __init__(self, label: str, total: int, unit: str = "item") -> None:
        self.label, self.total, self.unit, self.done = label, total, unit, 0
        self._start = self._last = time.monotonic()
        self._bar = tqdm(total=total, desc=label, unit=unit, file=sys.stderr) if sys.stderr.isatty() else None

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
            if note:
                self._bar.set_postfix_str(note)
            return
        now = time.monotonic()
        if now - self._last >= _PROGRESS_EVERY_S or self.done >= self.total:
            self._last = now
            rate = self.done / max(now - self._start, 1e-9)
            left = (self.total - self.done) / max(rate, 1e-9)
            share = 100 * self.done / max(self.total, 1)
            tail = f"  {note}" if note else ""
            print(
                f"{self.label}: {self.done}/{self.total} {self.unit}s ({share:.0f} %), "
                f"{rate:.3g}/s, {left:.0f} s left{tail}",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """What `on_error` gets instead of an exception object that may not travel between processes."""

    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


class Executor(Protocol):
    """Runs a function over items; yields `(index, result or Failure, cpu seconds)` as they finish."""

    @property
    def name(self) -> str: ...

    def map(self, fn: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any, float]]: ...

    def map_loaded(
        self, load: Callable[[], Callable[[Any], Any]], items: Sequence[Any]
    ) -> Iterator[tuple[int, Any, float]]: ...


def _guarded(fn: Callable[[Any], Any], item: Any) -> tuple[Any, float]:
    start = time.process_time()
    try:
        result = fn(item)
    except Exception as e:  # an item's failure is a row, whatever it was
        result = Failure(type(e).__name__, str(e)[:2000])
    return result, time.process_time() - start


@dataclasses.dataclass(frozen=True)
class Local:
    """This process, one item after the other: a debugger works, and there is nothing to start."""

    name: str = "local"

    def map(self, fn: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any, float]]:
        for index, item in enumerate(items):
            yield index, *_guarded(fn, item)

    def map_loaded(
        self, load: Callable[[], Callable[[Any], Any]], items: Sequence[Any]
    ) -> Iterator[tuple[int, Any, float]]:
        if items:
            yield from self.map(load(), items)


@dataclasses.dataclass(frozen=True)
class Ray:
    """A Ray cluster: the one we run on inside a Ray job, or `RAY_ADDRESS`, else one started here.

    Tasks are retried on a dead worker (not on exceptions); what still dies comes back as a `Failure`.
    """

    workers: int = 2
    name: str = "ray"

    def _init(self) -> Any:
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # unset, clients of a local cluster send no token
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        if not ray.is_initialized():
            ray.init(log_to_driver=True, include_dashboard=False, configure_logging=True, logging_level=logging.WARNING)
        return ray

    def map(self, fn: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any, float]]:
        if not items:
            return
        ray = self._init()
        task = ray.remote(num_cpus=1, max_retries=1)(_guarded)
        shared = ray.put(fn)
        waiting: dict[Any, int] = {}
        queue = iter(enumerate(items))
        limit = 4 * self.workers  # bounded in flight: the driver never holds the batch
        while True:
            for index, item in _take(queue, limit - len(waiting)):
                waiting[task.remote(shared, item)] = index
            if not waiting:
                return
            ready, _ = ray.wait(list(waiting), num_returns=1)
            yield self._collect(ray, ready[0], waiting.pop(ready[0]))

    def map_loaded(
        self, load: Callable[[], Callable[[Any], Any]], items: Sequence[Any]
    ) -> Iterator[tuple[int, Any, float]]:
        if not items:
            return
        ray = self._init()
        actor = ray.remote(num_cpus=1)(_Loaded)
        waiting: dict[Any, tuple[int, Any]] = {}
        queue = list(range(len(items)))[::-1]
        idle = [actor.remote(load) for _ in range(min(self.workers, len(items)))]
        tried: set[int] = set()
        while queue or waiting:
            while idle and queue:
                index, worker = queue.pop(), idle.pop()
                waiting[worker.run.remote(items[index])] = (index, worker)
            ready, _ = ray.wait(list(waiting), num_returns=1)
            index, worker = waiting.pop(ready[0])
            try:
                result, cpu_s = ray.get(ready[0])
            except ray.exceptions.RayTaskError as e:  # items are guarded: this is `load`, and the same everywhere
                raise (e.cause if isinstance(e.cause, Exception) else e) from None
            except ray.exceptions.RayError as e:  # the worker died; the next item must not find a dead one
                idle.append(actor.remote(load))
                if index not in tried:
                    tried.add(index)
                    queue.append(index)
                    continue
                result, cpu_s = _lost(e), 0.0
            else:
                idle.append(worker)
            yield index, result, cpu_s
        for worker in idle:
            ray.kill(worker)

    @staticmethod
    def _collect(ray: Any, ref: Any, index: int) -> tuple[int, Any, float]:
        try:
            result, cpu_s = ray.get(ref)
        except ray.exceptions.RayError as e:
            return index, _lost(e), 0.0
        return index, result, cpu_s


def _lost(error: Exception) -> Failure:
    """An item whose worker died twice."""
    return Failure(type(error).__name__, str(error).strip().splitlines()[0][:2000])


class _Loaded:
    """A Ray actor that holds one loaded model."""

    def __init__(self, load: Callable[[], Callable[[Any], Any]]) -> None:
        self._load = load
        self._fn: Callable[[Any], Any] | None = None

    def run(self, item: Any) -> tuple[Any, float]:
        if self._fn is None:  # here, not above: an actor that fails to start hides why
            self._fn = self._load()
        return _guarded(self._fn, item)


def _take(queue: Iterator[Any], count: int) -> list[Any]:
    taken = []
    for _ in range(count):
        try:
            taken.append(next(queue))
        except StopIteration:
            break
    return taken


def executor(name: str, workers: int | None = None) -> Executor:
    """`local` or `ray`."""
    if name == "local":
        return Local()
    if name == "ray":
        return Ray(workers=workers or os.cpu_count() or 1)
    raise ConfigError(f"--executor is `local` or `ray`, got `{name}`")


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
    ) -> dict[str, pa.Table]:
        """Map `fn` over items, keep each finished item as parts, and return all rows by table.

        Args:
            fn: Item to `{table name: rows}`; picklable.  With `loaded`, a function without arguments that
                loads a model and returns such a function; it is called once per worker.
            key: The item's name by content; config and code version are added here.
            outputs: The tables that `fn` gives rows of, each conforming to its schema.
            on_error: Rows for an item that raised or killed its worker; they are not kept as parts,
                so that the next run tries the item again.
        """
        paths = [self._part_paths(key(item), outputs) for item in items]
        done = {i: rows for i, p in enumerate(paths) if (rows := self._finished(p)) is not None}
        todo = [i for i in range(len(items)) if i not in done]
        progress = Progress(self.stage.name, len(items), unit)
        if done:
            progress.advance(len(done), f"{len(done)} finished earlier")
        run: Callable[..., Iterator[tuple[int, Any, float]]]
        run = self.executor.map_loaded if loaded else self.executor.map
        for position, result, cpu_s in run(fn, [items[i] for i in todo]):
            index = todo[position]
            self.cpu_s += cpu_s
            if isinstance(result, Failure):
                done[index] = {t.name: t.conform(on_error(items[index], result)[t.name]) for t in outputs}
            else:
                done[index] = {t.name: t.conform(result[t.name]) for t in outputs}
                for name, path in paths[index].items():
                    self.store.write_part(path, done[index][name])
            progress.advance()
        progress.close()
        return {
            t.name: pa.concat_tables([done[i][t.name] for i in range(len(items))]) if items else t.empty()
            for t in outputs
        }

    def _part_paths(self, key: str, outputs: Sequence[Table]) -> dict[str, str]:
        name = digest(key, self.made_by)
        return {t.name: self.store.part(self.stage.name, f"{name}.{t.name}") for t in outputs}

    def _finished(self, paths: Mapping[str, str]) -> dict[str, pa.Table] | None:
        rows: dict[str, pa.Table] = {}
        for name, path in paths.items():
            part = self.store.read_part(path)
            if part is None:
                return None
            rows[name] = part
        return rows


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
    """
    start = time.monotonic()
    standing = _standing(stage, store, config, batch)
    if standing.commits is not None and not force:
        return _result(stage, batch, False, standing.commits, start)
    wanted, made_by = standing.wanted, standing.made_by
    context = Context(stage, store, stage.settings(config), standing.batch, executor or Local(), made_by)
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


def _intact(store: Store, table: Table, batch: str | None) -> Commit | None:
    """What is committed; a damaged file counts as absent, because this stage is what mends it."""
    from schemas.errors import DamagedTable

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
