"""One Dagster run of the asset graph, followed line by line, with what killed runs left behind swept first."""

import contextlib
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import dagster as dg

from orchestration import definitions, partitions, services
from orchestration.ask import Ask, say
from orchestration.ray_jobs import RayJobs
from orchestration.rooms import Placed
from schemas.store import Store

_TAG = "dailies/demo"
_POLL_S = 1.0
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def run_graph(question: Ask, placed: Sequence[Placed], batch: str, on_ray: bool) -> str:
    """Materialise the stages' assets for one batch; returns why it failed, or an empty text.

    Environment: DAGSTER_HOME and DAILIES_ROOT are set by the caller.
    """
    with dg.DagsterInstance.get() as instance:
        _sweep(instance, Store(question.root).root if on_ray else "")
        partitions.add(instance, batch)
        name = uuid.uuid4().hex
        with _raw_output_to(services.folder(question.root) / "demo.log") as terminal:
            watch = _Watch(instance, name, terminal)
            watch.start()
            try:
                result = dg.execute_job(
                    dg.reconstructable(definitions.everything),
                    instance,
                    run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                    tags={"dagster/partition": batch, _TAG: name},
                    asset_selection=definitions.keys(placed),
                )
            finally:
                watch.finish()
        if result.success:
            return ""
        return watch.failure or "the Dagster run failed"


@contextlib.contextmanager
def _raw_output_to(log: Path) -> Iterator[TextIO]:
    """Send what this process and the steps it forks write to a log; yields the terminal's standard error.

    Steps inherit our descriptors, and Dagster copies each job's whole log to them: on a terminal it would bury
    the progress, and with --json it would reach standard output.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with open(log, "w") as f, os.fdopen(os.dup(2), "w", buffering=1) as terminal:
        os.dup2(f.fileno(), 1)
        os.dup2(f.fileno(), 2)
        try:
            yield terminal
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, descriptor in enumerate(kept, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)


def _sweep(instance: dg.DagsterInstance, root: str) -> None:
    """Mark runs of killed demos as failed, and stop their jobs.  The caller holds the root's lock."""
    stale = [r for r in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)) if _TAG in r.tags]
    for run in stale:
        instance.report_run_failed(run, "swept: the process that ran it is gone")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        say(f"swept Dagster run {run.run_id[:8]}, which an earlier demo left behind")
    if root and stale:
        RayJobs(root).sweep(runs=[r.run_id for r in stale], say=say)


class _Watch(threading.Thread):
    """Prints a line as each asset starts, goes on and ends, from the run's event log."""

    def __init__(self, instance: dg.DagsterInstance, name: str, terminal: TextIO) -> None:
        super().__init__(daemon=True)
        self._terminal = terminal
        self.failure = ""
        self._instance, self._name = instance, name
        self._ended = threading.Event()
        self._began = time.monotonic()
        self._began_at: dict[str, float] = {}
        self._cursor: str | None = None
        self._run_id = ""

    def run(self) -> None:
        while not self._ended.wait(_POLL_S):
            self._read()

    def finish(self) -> None:
        self._ended.set()
        self.join(10)
        self._read()

    def _read(self) -> None:
        if not self._run_id:
            found = self._instance.get_runs(dg.RunsFilter(tags={_TAG: self._name}), limit=1)
            if not found:
                return
            self._run_id = found[0].run_id
        while True:
            page = self._instance.get_records_for_run(self._run_id, cursor=self._cursor)
            for record in page.records:
                self._tell(record.event_log_entry)
            self._cursor = page.cursor
            if not page.has_more:
                return

    def _tell(self, entry: Any) -> None:
        step, event = entry.step_key, entry.dagster_event
        if step is None:
            return
        now = time.monotonic() - self._began
        if event is None:
            if entry.level >= 20:  # the step's own words: INFO and above
                self._line(now, f"  {entry.user_message}")
        elif event.is_step_start:
            self._began_at[step] = now
            self._line(now, f"> {step}")
        elif event.is_step_success:
            self._line(now, f"+ {step}  {now - self._began_at.get(step, now):.0f} s")
        elif event.is_step_up_for_retry:
            self._line(now, f"! {step} failed and is tried again: {_why(event)}")
        elif event.is_step_failure:
            self._line(now, f"x {step} failed: {_why(event)}")
            self.failure = self.failure or f"stage {step} failed: {_why(event)}"

    def _line(self, now: float, text: str) -> None:
        print(f"[{now:6.1f} s] {text}", file=self._terminal, flush=True)


def _why(event: Any) -> str:
    """The innermost reason of a step's failure."""
    data = event.event_specific_data
    failure = getattr(data, "user_failure_data", None)
    if failure is not None and failure.description:
        return str(failure.description)
    error = getattr(data, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    return str(error.message).strip() if error is not None else "no reason given"
