"""What an item's run can end as, whoever runs it: the same words from every executor, so that rows are the same.

An item that raises is a `Failure` of the exception's kind.  One that kills its worker is tried once more, since the
worker may have been killed from outside; after the second death it is `WorkerDied`.  One that takes
longer than its deadline is `DeadlineExceeded` and is not tried again: it would only take as long.
"""

import dataclasses
import resource
import time
from collections.abc import Callable
from typing import Any

DEATHS = 2
"""Deaths of a worker after which the item is taken for the cause."""
Deadline = Callable[[Any], float]
"""Item to the most seconds that it may take."""


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """What `on_error` gets instead of an exception object that may not travel between processes."""

    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind

    @property
    def is_poison(self) -> bool:
        """The item ended its worker, and not by raising."""
        return self.kind in (_DIED, _LATE)


_DIED, _LATE = "WorkerDied", "DeadlineExceeded"


def killed_twice() -> Failure:
    return Failure(_DIED, "it killed its worker twice")


def overdue(limit_s: float) -> Failure:
    return Failure(_LATE, f"it took longer than {limit_s:.0f} s")


def guarded(fn: Callable[[Any], Any], item: Any) -> tuple[Any, float]:
    """The item's result or `Failure`, and its CPU seconds with those of what it started."""
    start = _cpu_s()
    try:
        result = fn(item)
    except Exception as e:  # an item's failure is a row, whatever it was
        result = Failure(type(e).__name__, str(e)[:2000])
    return result, _cpu_s() - start


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
