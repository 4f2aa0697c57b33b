"""A Ray head of our own on loopback: started, asked whether it answers, ended by its pids.

`ray start --head --block` runs in a session of its own; Ray's processes below it share its fate (the
kernel ends them when it dies).  Token authentication is on: the Jobs API runs any command, so without a
token every user of the machine could; and while the Jobs API and the pages listen on loopback alone, Ray's own
gRPC ports listen everywhere, and take the token's word.  Never `ray stop`, which ends other people's clusters too.

Cost: 10-40 s to boot on two cores; then about 700 MB of memory.
"""

import dataclasses
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestration import processes
from orchestration.processes import Process
from schemas.errors import WorldError

HOST = "127.0.0.1"
# Ray turns 127.0.0.1 into the address of the network card; on Linux the rest of 127/8 is loopback too and stays.
_NODE = "127.0.0.2" if sys.platform.startswith("linux") else HOST
_BOOT_S = 150.0
_OBJECT_STORE_BYTES = 400_000_000  # rows carry paths and small frames; a batch of JPEGs fits
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_COLOR_PREFIX": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TQDM": "0",
    "RAY_worker_niceness": "0",  # 15 by default: tasks would starve beside a training that runs in a job's own process
}
_GRACE_S = 3.0  # it would drain its node for 30 s; nothing in it outlives a job


class ServiceError(WorldError):
    """A service did not start, or does not answer; the message holds the end of its log."""


@dataclasses.dataclass(frozen=True, slots=True)
class RayHead:
    """A running head, and all that is needed to use it and to end it."""

    process: Process
    dashboard: str
    """`http://127.0.0.1:<port>`: the Jobs API and Ray's own pages."""
    gcs: str
    """`127.0.0.1:<port>`, what `RAY_ADDRESS` takes."""
    token_path: str
    temp: str
    log: str
    family: tuple[Process, ...] = ()
    """Its processes once it answered, so that they are found even if the first of them was killed."""

    def env(self) -> dict[str, str]:
        """What a process needs to talk to it."""
        return {
            "RAY_ADDRESS": self.gcs,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": self.token_path,
            "DAILIES_RAY_JOBS": self.dashboard,
        }

    def token(self) -> str:
        return Path(self.token_path).read_text().strip()

    def answers(self) -> bool:
        """Whether the Jobs API lists jobs for our token."""
        request = urllib.request.Request(  # noqa: S310 - always http on loopback
            f"{self.dashboard}/api/jobs/", headers={"Authorization": f"Bearer {self.token()}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
                return bool(reply.status == 200)
        except (OSError, urllib.error.URLError):
            return False


def from_json(value: Mapping[str, Any]) -> RayHead:
    plain = dict(value)
    plain["process"] = Process(**plain["process"])
    plain["family"] = tuple(Process(**p) for p in plain.get("family", ()))
    return RayHead(**plain)


def free_port(wanted: int | None = None) -> int:
    """The wanted port of loopback if it is free, else one the system gives."""
    for port in (wanted, 0):
        if port is None:
            continue
        with socket.socket() as s:
            try:
                s.bind((HOST, port))
            except OSError:
                continue
            return int(s.getsockname()[1])
    raise ServiceError(f"no free port on {HOST}")


def write_token(folder: Path) -> str:
    """The token of this root, made once, readable by its owner alone."""
    path = folder / "ray_auth_token"
    if not path.exists():
        staged = path.with_suffix(f".{os.getpid()}")
        with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
            f.write(secrets.token_hex(32))
        os.replace(staged, path)
    return str(path)


def start(
    folder: Path,
    num_cpus: int | None = None,
    say: Callable[[str], None] = lambda _: None,
    env: Mapping[str, str] | None = None,
    started: Callable[[RayHead], None] = lambda _: None,
) -> RayHead:
    """Start a head and wait until it takes jobs.

    Args:
        folder: Where its log and its token are kept.
        num_cpus: CPUs it may hand out; all of this machine by default.
        env: Environment variables beside this process's own.
        started: Called with the head as soon as its process exists, so that it can be found if we die.

    Raises:
        ServiceError: If it ends, or does not answer in time.
    """
    token_path = write_token(folder)
    for wanted in (True, False):  # a second try with other ports: someone may have been faster
        head = _spawn(folder, token_path, num_cpus or os.cpu_count() or 1, wanted, env or {})
        started(head)
        try:
            _wait(head, say)
        except ServiceError:
            end(head)
            if not wanted:
                raise
            continue
        return dataclasses.replace(head, family=(head.process, *processes.descendants(head.process.pid)))
    raise AssertionError("unreachable")


def _spawn(folder: Path, token_path: str, num_cpus: int, usual: bool, env: Mapping[str, str]) -> RayHead:
    dashboard = free_port(8265 if usual else None)
    gcs = free_port(6379 if usual else None)
    temp = tempfile.mkdtemp(prefix="dailies-ray-")  # short: Unix sockets live below it (107 bytes at most)
    log = folder / "ray_head.log"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    options: dict[str, Any] = {
        "node-ip-address": _NODE,
        "port": gcs,
        "num-cpus": num_cpus,
        "num-gpus": 0 if not os.path.exists("/dev/nvidia0") else None,
        "include-dashboard": "true",
        "dashboard-host": HOST,
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": free_port(),
        "ray-client-server-port": free_port(),
        "object-store-memory": _OBJECT_STORE_BYTES,
        "temp-dir": temp,
        "include-log-monitor": "false",
    }
    command += [f"--{name}={value}" for name, value in options.items() if value is not None]
    command.append("--disable-usage-stats")
    environment = {**os.environ, **_QUIET, **env, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token_path}
    environment.pop("RAY_ADDRESS", None)
    process = processes.spawn(command, log, environment)
    return RayHead(process, f"http://{HOST}:{dashboard}", f"{_NODE}:{gcs}", token_path, temp, str(log))


def _wait(head: RayHead, say: Callable[[str], None]) -> None:
    start_s, told = time.monotonic(), 0.0
    while not head.answers():
        waited = time.monotonic() - start_s
        if not processes.is_alive(head.process) or waited > _BOOT_S:
            what = "ended" if not processes.is_alive(head.process) else f"did not answer in {_BOOT_S:.0f} s"
            tail = Path(head.log).read_text(errors="replace")[-2000:]
            raise ServiceError(f"the Ray head {what}; the end of {head.log}:\n{tail}")
        if waited - told >= 10:
            told = waited
            say(f"starting Ray ... {waited:.0f} s")
        time.sleep(0.3)


def end(head: RayHead) -> None:
    """End the head and what it started; leaves nothing, its temporary folder included."""
    processes.end([head.process, *head.family], _GRACE_S)
    if not Path(head.temp).name.startswith("dailies-ray-"):
        return
    for _ in range(20):  # the kernel ends what hung on a killed head a moment later, and it writes till then
        shutil.rmtree(head.temp, ignore_errors=True)
        time.sleep(0.2)
        if not os.path.exists(head.temp):
            return
