"""Processes by pid *and* start time, so that a pid which was given away again is never taken for ours.

Reads `/proc` on Linux and asks `ps` elsewhere.  Cost: one file per process.
"""

import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence

_GRACE_S = 8.0


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    """One process that can be recognised later."""

    pid: int
    started: str
    """Start time as the system tells it; only compared."""


def _stat(pid: int) -> tuple[int, str, str] | None:
    """(parent's pid, start time, state), or None if there is no such process."""
    if os.path.isdir("/proc/self"):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
                fields = f.read().rpartition(")")[2].split()
        except OSError:
            return None
        return int(fields[1]), fields[19], fields[0]
    out = subprocess.run(["ps", "-o", "ppid=,state=,lstart=", "-p", str(pid)], capture_output=True, text=True)
    words = out.stdout.split(maxsplit=2)
    return (int(words[0]), words[2].strip(), words[1][0]) if len(words) == 3 else None


_CHILDREN: list[subprocess.Popen[bytes]] = []  # kept, because Popen warns when it is forgotten while it runs


def spawn(command: Sequence[str], log: str | os.PathLike[str], env: Mapping[str, str], cwd: str = "/") -> Process:
    """Start a process in a session of its own, that outlives us and writes to a log."""
    with open(log, "w") as f:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=f, stderr=f, env=dict(env), start_new_session=True, cwd=cwd
        )
    _CHILDREN.append(child)
    return find(child.pid) or Process(child.pid, "")


def find(pid: int) -> Process | None:
    """The living process of that pid; a zombie counts as ended."""
    stat = _stat(pid)
    return Process(pid, stat[1]) if stat and stat[2] != "Z" else None


def is_alive(process: Process) -> bool:
    """Whether this very process still runs."""
    return find(process.pid) == process


def _all_pids() -> list[int]:
    if os.path.isdir("/proc/self"):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    out = subprocess.run(["ps", "-A", "-o", "pid="], capture_output=True, text=True)
    return [int(word) for word in out.stdout.split()]


def descendants(pid: int) -> list[Process]:
    """All living processes below one, by parentage."""
    children: dict[int, list[Process]] = {}
    for each in _all_pids():
        stat = _stat(each)
        if stat and stat[2] != "Z":
            children.setdefault(stat[0], []).append(Process(each, stat[1]))
    found: list[Process] = []
    queue = list(children.get(pid, []))
    while queue:
        process = queue.pop()
        found.append(process)
        queue += children.get(process.pid, [])
    return found


def end(processes: Iterable[Process], grace_s: float = _GRACE_S) -> int:
    """End processes and everything below them: asked first, killed after `grace_s`.  Returns how many ended."""
    roots = [p for p in processes if is_alive(p)]
    family = roots + [d for p in roots for d in descendants(p.pid)]
    for process in roots:
        _send(process, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline and any(is_alive(p) for p in family):
        _reap(roots)
        time.sleep(0.1)
    left = [p for p in family if is_alive(p)]
    for process in left:
        _send(process, signal.SIGKILL)
    while time.monotonic() < deadline + grace_s and any(is_alive(p) for p in left):
        _reap(left)
        time.sleep(0.05)
    _reap(roots)
    return len(family)


def _send(process: Process, number: int) -> None:
    if is_alive(process):
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return


def _reap(processes: Iterable[Process]) -> None:
    """Take the exit status of those that are our own children, lest they stay as zombies."""
    ours = {p.pid for p in processes}
    for child in _CHILDREN:
        if child.pid in ours:
            child.poll()
