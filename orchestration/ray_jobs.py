"""Dagster -> Ray through the Ray Jobs API: one job per stage and batch.  One of three files that know Ray.

The job's entry point is the command that a person would type (`dailies stage NAME ...`).  Its log goes
to the step's stdout (Dagster's compute logs) and its progress lines to the step's events; numbers come from
the committed table's footer, never from the log.  A job is named by its run and retry and carries its
*unit* (root, stage, batch): a stopped run stops its job, and a later one stops what a killed step left
running before it submits its own.

Cost: about 3 s per job on an idle two-core machine, beside the work.  Source: Ray 2.60's job SDK;
`dagster-ray`'s Pipes client was tried and loses its messages on the second use in one process.
"""

import dataclasses
import multiprocessing
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestration import services
from schemas.errors import DailiesError, WorldError
from schemas.ids import digest

_POLL_S = 0.5
_STOP_S = 30.0
_LOG_S, _LOG_BYTES_PER_S = 1.5, 200_000
_API_ADDRESS = "RAY_API_SERVER_ADDRESS"
_PROGRESS = re.compile(r"^[\w .:-]+: \d+/\d+ ")
_PASSED_ON = ("OMP_NUM_THREADS", "HF_HUB_OFFLINE", "PYTHONPATH", "DAILIES_ROOMS")


class JobFailed(DailiesError):
    """A Ray job that did not succeed; carries the end of its log."""

    def __init__(self, submission_id: str, status: str, log_tail: str, exit_code: int | None) -> None:
        super().__init__(f"Ray job {submission_id} {status}")
        self.submission_id, self.status, self.log_tail, self.job_exit_code = submission_id, status, log_tail, exit_code

    @property
    def may_succeed_later(self) -> bool:
        """A request that cannot be met (exit code 2) fails every time."""
        return self.job_exit_code != 2


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What to run."""

    unit: str
    """Root, stage and batch; two jobs of one unit never run side by side."""
    arguments: tuple[str, ...]
    run_id: str = ""
    attempt: int = 0

    @property
    def submission_id(self) -> str:
        """The same for the same unit, run and retry."""
        return f"{digest(self.unit)[:12]}-{self.run_id[:8] or 'none'}-{self.attempt}"


class RayJobs:
    """Submits jobs to one cluster and waits for them."""

    def __init__(self, root: str, address: str = "", python: str = "") -> None:
        """
        Args:
            address: The Jobs API's address; empty for the head that `dailies up` started for `root`.
            python: Interpreter on the cluster; this one by default.
        """
        self.root, self.python = root, python or sys.executable
        self.env: dict[str, str] = {}
        if not address:
            head = services.read(root).ray
            if head is None:
                raise WorldError(f"no Ray runs for root {root}: start it with `dailies up --root {root}`")
            address, self.env = head.dashboard, head.env()
            os.environ.update({k: v for k, v in self.env.items() if k.startswith("RAY_AUTH")})
        self.address = address.rstrip("/")
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # unset, this client would send no token
        self.client: Any = _client(self.address)

    def run(
        self,
        job: Job,
        say: Callable[[str], None] = lambda _: None,
        write: Callable[[str], Any] | None = None,
    ) -> str:
        """Run a job to its end and return its submission id.

        Args:
            say: Gets the job's address first, then its progress lines.
            write: Gets its log as it comes; this process's stdout by default.

        Raises:
            JobFailed: If it does not succeed.
        """
        self.sweep(job.unit, say=say)
        self._submit(job)
        name = job.submission_id
        say(f"Ray job {name}  {self.address}/#/jobs/{name}")
        log = _Log(self.client, name, say, write or _to_stdout)
        try:
            status = self._wait(name, log)
        except BaseException:  # terminated from the UI, Ctrl-C, or the run's own process died
            self.stop(name)
            raise
        log.read(last=True)
        if str(status) != "SUCCEEDED":
            info = self.client.get_job_info(name)
            raise JobFailed(name, str(status), (log.text or info.message or "")[-4000:], info.driver_exit_code)
        return name

    def sweep(self, unit: str = "", runs: Sequence[str] = (), say: Callable[[str], None] = lambda _: None) -> list[str]:
        """Stop jobs of a unit, or of Dagster runs, that nobody waits for any more; returns their ids."""
        stopped = []
        for found in self.client.list_jobs():
            notes = found.metadata or {}
            ours = (unit and notes.get("dailies/unit") == unit) or notes.get("dagster/run-id") in runs
            if ours and not found.status.is_terminal():
                say(f"stopping Ray job {found.submission_id}, which an earlier run left behind")
                self.stop(found.submission_id)
                stopped.append(found.submission_id)
        return stopped

    def stop(self, submission_id: str) -> None:
        """Stop a job and wait until it is gone."""
        try:
            self.client.stop_job(submission_id)
            deadline = time.monotonic() + _STOP_S
            while time.monotonic() < deadline and not self.client.get_job_status(submission_id).is_terminal():
                time.sleep(_POLL_S / 2)
        except RuntimeError as e:  # the cluster is gone, and the job with it
            print(f"job {submission_id} could not be stopped: {e}", file=sys.stderr)

    def _submit(self, job: Job) -> None:
        given = {k: os.environ[k] for k in _PASSED_ON if k in os.environ}
        auth = {k: v for k, v in os.environ.items() if k in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")}
        env = {**given, **auth, "PYTHONUNBUFFERED": "1", "RAY_DEDUP_LOGS": "0", "RAY_COLOR_PREFIX": "0"}
        for attempt in range(3):
            try:
                self.client.submit_job(
                    entrypoint=shlex.join([self.python, "-m", "orchestration.cli", *job.arguments]),
                    submission_id=job.submission_id,
                    metadata={"dailies/unit": job.unit, "dagster/run-id": job.run_id},
                    runtime_env={"env_vars": env},
                )
                return
            except RuntimeError as e:
                if attempt == 2 or "agent" not in str(e).lower():
                    raise WorldError(f"Ray at {self.address} did not take the job: {str(e)[-1000:]}") from e
                time.sleep(3)  # a head that has just come up has no agent to run jobs yet

    def _wait(self, name: str, log: "_Log") -> Any:
        parent = multiprocessing.parent_process()
        silent = 0
        while True:
            try:
                status = self.client.get_job_status(name)
                silent = 0
                if status.is_terminal():
                    return status
                log.read()
            except (RuntimeError, OSError) as e:  # connection refused is a RuntimeError or requests' OSError
                silent += 1
                if silent > 20:
                    raise WorldError(f"Ray at {self.address} no longer answers ({e}); job {name} is lost") from e
            if parent is not None and not parent.is_alive():
                raise WorldError("the Dagster run that started this step is gone")
            time.sleep(_POLL_S)


def _client(address: str) -> Any:
    """A client of this address: Ray lets RAY_ADDRESS override what it is given, which may be another cluster."""
    from ray.job_submission import JobSubmissionClient

    before = os.environ.get(_API_ADDRESS)
    os.environ[_API_ADDRESS] = address
    try:
        return JobSubmissionClient(address)
    finally:
        if before is None:
            del os.environ[_API_ADDRESS]
        else:
            os.environ[_API_ADDRESS] = before


class _Log:
    """A job's log as it grows.

    Asks for the whole of it, the less often the longer it is: Ray's own stream (a websocket) lags by seconds
    and holds every job up by three at its end.
    """

    def __init__(self, client: Any, name: str, say: Callable[[str], None], write: Callable[[str], Any]) -> None:
        self.text = ""
        self._client, self._name, self._say, self._write = client, name, say, write
        self._next_s = 0.0

    def read(self, last: bool = False) -> None:
        """Pass on what is new, whole lines only until the `last` time."""
        if not last and time.monotonic() < self._next_s:
            return
        try:
            text = self._client.get_job_logs(self._name) or ""
        except (RuntimeError, OSError) as e:  # the log is a convenience; the job's status decides
            text = self.text + (f"[the log could not be read: {e}]\n" if last else "")
        new = text[len(self.text) :]
        if not last:
            new = new[: new.rfind("\n") + 1]
        self._next_s = time.monotonic() + max(_LOG_S, len(text) / _LOG_BYTES_PER_S)
        self.text += new
        if new:
            self._write(new if new.endswith("\n") else new + "\n")
        for line in new.splitlines():
            if _PROGRESS.match(line):
                self._say(line)


def _to_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def stage_arguments(
    stage: str, *, root: str, batch: str | None, recipe: str, settings: Sequence[str], executor: str = "ray"
) -> tuple[str, ...]:
    """What a person would type after `dailies` to run this stage."""
    chosen = ["--batch", batch] if batch else []
    sets = [word for s in settings for word in ("--set", s)]
    return ("stage", stage, "--root", root, *chosen, "--recipe", recipe, *sets, "--executor", executor, "--json")


def unit(root: str, stage: str, batch: str | None) -> str:
    """Name of what a job brings up to date."""
    return f"{root}:{stage}:{batch or ''}"


def jobs_environment(root: str) -> Mapping[str, str]:
    """Environment with which a command on this machine finds the root's Ray; empty if none runs."""
    head = services.read(root).ray
    return head.env() if head else {}
