"""Child processes that run items and may die: what libav does to a broken file must not take the command along.

A child is a fresh interpreter (no fork: a parent with threads of torch or Ray may not be forked), fed one item
at a time over a pipe, and kept for the next stage.  An item whose child dies is tried once more on another
child; the second death makes it a `Failure`, and so does its deadline, at which the child and all that it
started are killed.  A child ends with its parent, however that ends: its pipe closes, and on Linux the
kernel kills it too, so that even one that hangs in C is no orphan.

Cost: 0.6 s of CPU per child and command (its imports), then 0.1 ms per item.
"""

import atexit
import contextlib
import ctypes
import faulthandler
import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from pipelines.running.items import DEATHS, Deadline, guarded, killed_twice, overdue
from schemas.errors import WorldError

_PR_SET_PDEATHSIG = 1
_LOADED = "loaded"
_LOAD_S = 120.0
"""For a child to start and import what it needs, s; an item's deadline counts from then on."""
_IDLE: list["Worker"] = []
_START = "import sys; sys.path[:] = {path!r}; from pipelines.running.workers import serve; serve({wire}, {parent})"


class Worker:
    """One child process."""

    def __init__(self) -> None:
        self.wire, theirs = multiprocessing.Pipe()
        code = _START.format(path=sys.path, wire=theirs.fileno(), parent=os.getpid())
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,  # standard output is the command's answer
            process_group=0,  # so that what it started can be killed with it
            env={"OMP_NUM_THREADS": "1", **os.environ},  # workers are the parallelism
        )
        theirs.close()
        self.owner = os.getpid()
        self._code = b""

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None and self.owner == os.getpid()

    def begin(self, code: bytes, item: Any) -> bool:
        """Send an item, and the function if it is another one than before; says whether the child must load it."""
        loads = code != self._code
        self.wire.send((code if loads else None, item))
        self._code = code
        return loads

    def kill(self) -> str:
        """End the child and its children; returns how it had ended by itself, if it had."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        self.wire.close()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def serve(wire: int, parent: int) -> None:
    """The child's life: take an item, answer with its result and CPU seconds, until the pipe closes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    faulthandler.enable()
    fn: Callable[[Any], Any] | None = None
    with Connection(wire) as pipe, contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            code, item = pipe.recv()
            if code is not None:
                fn = pickle.loads(code)  # noqa: S301 - from our own parent
                pipe.send(_LOADED)
            assert fn is not None
            pipe.send(guarded(fn, item))


def run_items(
    fn: Callable[[Any], Any], items: Sequence[Any], count: int, deadline: Deadline | None = None
) -> Iterator[tuple[int, Any, float]]:
    """Map over items in up to `count` children; yields `(index, result or Failure, cpu seconds)` as they finish.

    Raises:
        WorldError: If children die before they take an item, which is not the items' fault.
    """
    code, queue, deaths = pickle.dumps(fn), deque(range(len(items))), Counter[int]()
    limits = [deadline(item) for item in items] if deadline else [math.inf] * len(items)
    busy: dict[Worker, tuple[int, float]] = {}
    try:
        while queue or busy:
            while queue and len(busy) < count:
                index = queue.popleft()
                worker, loads = _begin(code, items[index])
                busy[worker] = (index, time.monotonic() + limits[index] + (_LOAD_S if loads else 0.0))
            for worker in _ready(busy):
                index, _ = busy.pop(worker)
                try:
                    answer = worker.wire.recv()
                except (EOFError, OSError):
                    deaths[index] += 1
                    print(f"a worker died ({worker.kill()}), time {deaths[index]} with this item", file=sys.stderr)
                    if deaths[index] < DEATHS:
                        queue.append(index)
                    else:
                        yield index, killed_twice(), 0.0
                    continue
                if answer == _LOADED:
                    busy[worker] = (index, time.monotonic() + limits[index])
                    continue
                _IDLE.append(worker)
                yield index, *answer
            for worker, index in _overdue(busy):
                del busy[worker]
                worker.kill()
                yield index, overdue(limits[index]), 0.0
    finally:
        for worker in busy:
            worker.kill()


def _begin(code: bytes, item: Any) -> tuple[Worker, bool]:
    """Give the item to an idle child that still lives, or to a new one; says whether it must load the function."""
    for _ in range(10):
        worker = _IDLE.pop() if _IDLE else Worker()
        if not worker.is_alive:
            continue
        try:
            loads = worker.begin(code, item)
        except (BrokenPipeError, ConnectionResetError):
            worker.kill()
        else:
            return worker, loads
    raise WorldError("worker processes die as soon as they start; `dailies doctor` checks what they need")


def _ready(busy: dict[Worker, tuple[int, float]]) -> list[Worker]:
    """Children that have answered or died; none if a deadline comes first."""
    left = min(end for _, end in busy.values()) - time.monotonic()
    found = wait([w.wire for w in busy], None if left == math.inf else max(0.0, left))
    return [w for w in busy if w.wire in found]


def _overdue(busy: dict[Worker, tuple[int, float]]) -> list[tuple[Worker, int]]:
    now = time.monotonic()
    return [(w, index) for w, (index, end) in busy.items() if now >= end]


def end_idle() -> None:
    """End the children that wait for work."""
    while _IDLE:
        worker = _IDLE.pop()
        if worker.owner == os.getpid():
            worker.kill()


atexit.register(end_idle)
