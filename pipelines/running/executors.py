"""Who maps a function over items: this process, its children, or a Ray cluster.  One of three files that know Ray.

All give the same results for the same items; only the order in which they come differs, and it carries an
index.  An item that raises, takes longer than its deadline, or kills its worker twice comes back as a
`Failure` (`pipelines.running.items`).  A model is loaded once per worker (`map_loaded`); a second worker is
started only when the work that is left costs more than loading.

Cost: a child 0.6 s of CPU; on Ray about 2 s for the first worker, and a model's imports and weights per worker.
"""

import dataclasses
import logging
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from tqdm import tqdm

from pipelines.running.items import DEATHS, Deadline, Failure, guarded, killed_twice, overdue
from pipelines.running.workers import run_items
from schemas.errors import ConfigError, WorldError

__all__ = ["Executor", "Failure", "Local", "Progress", "Ray", "executor"]

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


class Executor(Protocol):
    """Runs a function over items; yields `(index, result or Failure, cpu seconds)` as they finish."""

    @property
    def name(self) -> str: ...

    def map(
        self, fn: Callable[[Any], Any], items: Sequence[Any], deadline: Deadline | None = None
    ) -> Iterator[tuple[int, Any, float]]: ...

    def map_loaded(
        self, load: Callable[[], Callable[[Any], Any]], items: Sequence[Any]
    ) -> Iterator[tuple[int, Any, float]]: ...


@dataclasses.dataclass(frozen=True)
class Local:
    """This machine, without Ray.

    With no workers, this very process: a debugger works, and an item that kills it kills all.  With some,
    that many child processes (`pipelines.running.workers`), which may die; models are still loaded here.
    """

    workers: int = 0
    name: str = "local"

    def map(
        self, fn: Callable[[Any], Any], items: Sequence[Any], deadline: Deadline | None = None
    ) -> Iterator[tuple[int, Any, float]]:
        if self.workers:
            yield from run_items(fn, items, self.workers, deadline)
            return
        for index, item in enumerate(items):
            yield index, *guarded(fn, item)

    def map_loaded(
        self, load: Callable[[], Callable[[Any], Any]], items: Sequence[Any]
    ) -> Iterator[tuple[int, Any, float]]:
        if items:
            yield from Local().map(load(), items)


@dataclasses.dataclass(frozen=True)
class Ray:
    """A Ray cluster: the one we run on inside a Ray job, or `RAY_ADDRESS`, else one started here.

    Work goes to actors, one item at a time, because an actor can be killed at its item's deadline and its
    death belongs to one item.
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

    def map(
        self, fn: Callable[[Any], Any], items: Sequence[Any], deadline: Deadline | None = None
    ) -> Iterator[tuple[int, Any, float]]:
        if items:
            yield from _Actors(self._init(), partial(_given, fn), items, self.workers, deadline).run()

    def map_loaded(
        self, load: Callable[[], Callable[[Any], Any]], items: Sequence[Any]
    ) -> Iterator[tuple[int, Any, float]]:
        if items:
            yield from _Actors(self._init(), load, items, self.workers, None, grow=True).run()


def _given(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return fn


class _Actors:
    """One map over items on actors: who starts, who is idle, who works on what and until when."""

    def __init__(
        self,
        ray: Any,
        load: Callable[[], Callable[[Any], Any]],
        items: Sequence[Any],
        workers: int,
        deadline: Deadline | None,
        grow: bool = False,
    ) -> None:
        """Args:
        grow: Begin with one actor, since each loads a model, and add others only if that pays.
        """
        self._ray, self._items, self._deadline, self._grow = ray, items, deadline, grow
        self._actor, self._load = ray.remote(num_cpus=1)(_Loaded), ray.put(load)
        self._most = min(workers, len(items))
        self._queue, self._deaths = deque(range(len(items))), Counter[int]()
        self._starting: dict[Any, tuple[Any, float]] = {}
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[int, Any, float | None]] = {}
        self._load_s, self._stillborn = 0.0, 0

    def run(self) -> Iterator[tuple[int, Any, float]]:
        try:
            self._start(1 if self._grow else self._most)
            while self._queue or self._busy:
                self._hand_out()
                yield from self._collect()
                yield from self._end_overdue()
        finally:
            for worker in [*self._idle, *(w for w, _ in self._starting.values()), *(b[1] for b in self._busy.values())]:
                self._ray.kill(worker)

    def _start(self, count: int) -> None:
        for _ in range(count):
            worker = self._actor.remote(self._load)
            self._starting[worker.load.remote()] = (worker, time.monotonic())

    def _replace(self) -> None:
        """Another actor for one that is gone, if there is work for it."""
        if len(self._queue) > len(self._idle) + len(self._starting):
            self._start(1)

    def _hand_out(self) -> None:
        while self._idle and self._queue:
            index, worker = self._queue.popleft(), self._idle.pop()
            limit = self._deadline(self._items[index]) if self._deadline else None
            end = None if limit is None else time.monotonic() + limit
            self._busy[worker.run.remote(self._items[index])] = (index, worker, end)

    def _collect(self) -> Iterator[tuple[int, Any, float]]:
        """Wait for one actor to be ready, to answer or to die; or until a deadline."""
        ends = [end for _, _, end in self._busy.values() if end is not None]
        timeout = max(0.0, min(ends) - time.monotonic()) if ends else None
        ready, _ = self._ray.wait([*self._starting, *self._busy], num_returns=1, timeout=timeout)
        for ref in ready:
            if ref in self._starting:
                self._started(ref)
                continue
            index, worker, _ = self._busy.pop(ref)
            try:
                result, cpu_s, item_s = self._ray.get(ref)
            except self._ray.exceptions.RayError:  # items are guarded, so it died; the next must not find a dead one
                self._deaths[index] += 1
                again = self._deaths[index] < DEATHS
                self._queue.extend([index] if again else [])
                self._replace()
                if again:
                    continue
                result, cpu_s = killed_twice(), 0.0
            else:
                self._idle.append(worker)
                self._add_actors(item_s)
            yield index, result, cpu_s

    def _started(self, ref: Any) -> None:
        worker, since = self._starting.pop(ref)
        try:
            self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as e:  # the model does not load, and would not elsewhere
            raise (e.cause if isinstance(e.cause, Exception) else e) from None
        except self._ray.exceptions.RayError as e:
            self._stillborn += 1
            if self._stillborn > 2 * self._most + DEATHS:
                raise WorldError(f"Ray's workers die as soon as they start: {str(e).strip().splitlines()[0]}") from e
            self._start(1)
        else:
            self._idle.append(worker)
            self._load_s = self._load_s or max(time.monotonic() - since, 0.1)

    def _add_actors(self, item_s: float) -> None:
        """One more actor pays if the work that is left takes longer than loading."""
        running = len(self._idle) + len(self._busy) + len(self._starting)
        wanted = min(self._most, 1 + int(item_s * len(self._queue) / (self._load_s or 0.1)))
        if self._grow and wanted > running:
            self._start(wanted - running)

    def _end_overdue(self) -> Iterator[tuple[int, Any, float]]:
        now = time.monotonic()
        for ref, (index, worker, end) in list(self._busy.items()):
            if end is not None and now >= end and not self._ray.wait([ref], timeout=0)[0]:
                del self._busy[ref]
                self._ray.kill(worker)
                self._replace()
                yield index, overdue(self._deadline(self._items[index]) if self._deadline else 0.0), 0.0


class _Loaded:
    """A Ray actor that holds one loaded model, or just a function."""

    def __init__(self, load: Callable[[], Callable[[Any], Any]]) -> None:
        self._load = load
        self._fn: Callable[[Any], Any] | None = None

    def load(self) -> None:
        """Not in `__init__`: an actor that fails to start hides why."""
        self._fn = self._load()

    def run(self, item: Any) -> tuple[Any, float, float]:
        """The item's result, its CPU seconds and its seconds."""
        assert self._fn is not None
        start = time.monotonic()
        return *guarded(self._fn, item), time.monotonic() - start


def executor(name: str, workers: int | None = None) -> Executor:
    """`inline` (this process), `local` (child processes) or `ray`."""
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers is at least 1, got {workers}")
    if name == "inline":
        return Local()
    if name == "local":
        return Local(workers=workers or 1)
    if name == "ray":
        return Ray(workers=workers or os.cpu_count() or 1)
    raise ConfigError(f"--executor is `inline`, `local` or `ray`, got `{name}`")
