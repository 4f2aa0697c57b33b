"""Who maps a function over items: this process, or a Ray cluster.  One of three files that know Ray.

Both give the same results for the same items; only the order in which they come differs, and it carries an
index.  An item that raises, or that kills its worker twice, comes back as a `Failure`.  A model is loaded once
per worker (`map_loaded`); a second worker is started only when the work that is left costs more than loading.

Cost: on Ray about 2 s for the first task, and a model's imports and weights per worker.
"""

import dataclasses
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from tqdm import tqdm

from schemas.errors import ConfigError

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
        idle = [actor.remote(load)]
        running, tried, begun_s, load_s = 1, set[int](), time.monotonic(), 0.0
        while queue or waiting:
            while idle and queue:
                index, worker = queue.pop(), idle.pop()
                waiting[worker.run.remote(items[index])] = (index, worker)
            ready, _ = ray.wait(list(waiting), num_returns=1)
            index, worker = waiting.pop(ready[0])
            try:
                result, cpu_s, item_s = ray.get(ready[0])
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
                load_s = load_s or max(time.monotonic() - begun_s - item_s, 0.1)
                wanted = min(self.workers, 1 + int(item_s * len(queue) / load_s))
                idle += [actor.remote(load) for _ in range(running, wanted)]
                running = max(running, wanted)
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

    def run(self, item: Any) -> tuple[Any, float, float]:
        """The item's result, its CPU seconds and its seconds."""
        if self._fn is None:  # here, not above: an actor that fails to start hides why
            self._fn = self._load()
        start = time.monotonic()
        return *_guarded(self._fn, item), time.monotonic() - start


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
