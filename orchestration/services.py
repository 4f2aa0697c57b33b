"""What `dailies up` starts for a root, written down so that `dailies down` ends just that.

    <root>/services/services.json   processes by pid and start time, ports, addresses, who started them
    <root>/services/ray_auth_token  the token of its Ray (mode 600)
    <root>/services/*.log           what they wrote
    <root>/dagster/                 DAGSTER_HOME: runs, events, compute logs; SQLite

Everything is bound to loopback.  Twice `up` is once; a file left by a killed machine is recognised by its
processes' start times and swept.  A root in an object store keeps its services under ~/.local/state/dailies.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestration import processes, ray_head
from orchestration.processes import Process
from orchestration.ray_head import HOST, RayHead, ServiceError
from schemas.store import Store

Say = Callable[[str], None]
_UI_S = 120.0
_TRAININGS_ON_CPU = 2
_DAGSTER_YAML = """\
# Written by dailies; yours to edit, it is not written again.
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  runs:
    max_concurrent_runs: 2
  pools: # steps that train a model: one per GPU at a time, over all runs; two side by side where there is none
    granularity: op
    default_limit: {trainings}
run_monitoring:
  enabled: true
  start_timeout_seconds: 300
  free_slots_after_run_end_seconds: 60
freshness:
  enabled: true
python_logs:
  python_log_level: INFO
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Ui:
    """A running Dagster webserver with its daemon."""

    process: Process
    url: str
    log: str


@dataclasses.dataclass(frozen=True, slots=True)
class Services:
    """What runs for a root."""

    ray: RayHead | None = None
    ui: Ui | None = None
    by: str = ""
    """`demo` if the demo started Ray for itself and will end it, else `up`."""


def folder(root: str | os.PathLike[str]) -> Path:
    """Where a root's services keep their files."""
    return Store(root).on_this_machine("services")


def dagster_home(root: str | os.PathLike[str]) -> Path:
    """DAGSTER_HOME of a root, with its `dagster.yaml`."""
    home = folder(root).parent / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        gpus = [name for name in os.listdir("/dev") if re.fullmatch(r"nvidia\d+", name)]
        (home / "dagster.yaml").write_text(_DAGSTER_YAML.format(trainings=len(gpus) or _TRAININGS_ON_CPU))
    return home


def read(root: str | os.PathLike[str]) -> Services:
    """What is running now; what has died is left out."""
    try:
        plain: Mapping[str, Any] = json.loads((folder(root) / "services.json").read_text())
        ray = ray_head.from_json(plain["ray"]) if plain.get("ray") else None
        ui = Ui(**{**plain["ui"], "process": Process(**plain["ui"]["process"])}) if plain.get("ui") else None
    except (OSError, ValueError, KeyError, TypeError):
        return Services()
    return Services(
        ray if ray and processes.is_alive(ray.process) else None,
        ui if ui and processes.is_alive(ui.process) else None,
        str(plain.get("by", "")),
    )


def _write(root: str | os.PathLike[str], services: Services) -> None:
    path = folder(root) / "services.json"
    staged = path.with_suffix(f".{os.getpid()}")
    staged.write_text(json.dumps(dataclasses.asdict(services), indent=1))
    os.replace(staged, path)


@contextlib.contextmanager
def _alone(root: str | os.PathLike[str]) -> Iterator[None]:
    """One `up` or `down` at a time."""
    folder(root).mkdir(parents=True, exist_ok=True)
    with open(folder(root) / "lock", "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def _sweep(root: str | os.PathLike[str]) -> bool:
    """End what is left of a head whose first process is gone; says whether there was one."""
    try:
        plain = json.loads((folder(root) / "services.json").read_text()).get("ray")
        head = ray_head.from_json(plain) if plain else None
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if head is None or (processes.is_alive(head.process) and head.answers()):
        return False
    ray_head.end(head)
    return True


def up(root: str | os.PathLike[str], *, by: str = "up", num_cpus: int | None = None, say: Say = print) -> RayHead:
    """Start a Ray head for this root, or find the one that runs.

    Raises:
        ServiceError: If it does not come up.
    """
    with _alone(root):
        if _sweep(root):
            say("swept a Ray head that an earlier run left behind")
        now = read(root)
        if now.ray is not None:
            return now.ray
        say("starting Ray on loopback")
        began = time.monotonic()

        def note(head: RayHead) -> None:
            _write(root, Services(head, now.ui, by))

        try:
            head = ray_head.start(folder(root), num_cpus, say, started=note)
        except BaseException:
            left = read(root).ray
            if left is not None:
                ray_head.end(left)
            _write(root, Services(None, now.ui))
            raise
        note(head)
        say(f"Ray is up after {time.monotonic() - began:.0f} s: jobs at {head.dashboard}")
        return head


def ui(root: str | os.PathLike[str], *, port: int = 3000, say: Say = print) -> Ui:
    """Start Dagster's webserver and daemon over this root, or find the one that runs."""
    with _alone(root):
        now = read(root)
        if now.ui is not None:
            return now.ui
        free = ray_head.free_port(port)
        log = folder(root) / "dagster.log"
        module = ["-m", "orchestration.definitions", "--working-directory", str(Path(__file__).parents[1])]
        command = [sys.executable, "-m", "dagster", "dev", "-h", HOST, "-p", str(free), *module]
        environment = {**os.environ, **dagster_env(root)}
        running = Ui(processes.spawn(command, log, environment), f"http://{HOST}:{free}", str(log))
        _write(root, Services(now.ray, running, now.by))
        _wait_for_ui(running, say)
        return running


def dagster_env(root: str | os.PathLike[str]) -> dict[str, str]:
    """Environment of a Dagster process over this root."""
    return {
        "DAGSTER_HOME": str(dagster_home(root)),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "DAILIES_ROOT": Store(root).root,
        "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token"),
    }


def _wait_for_ui(running: Ui, say: Say) -> None:
    import urllib.request

    began, told = time.monotonic(), 0.0
    while True:
        try:
            with urllib.request.urlopen(f"{running.url}/server_info", timeout=5):  # noqa: S310 - http on loopback
                return
        except OSError:
            waited = time.monotonic() - began
        if not processes.is_alive(running.process) or waited > _UI_S:
            processes.end([running.process])
            tail = Path(running.log).read_text(errors="replace")[-2000:]
            raise ServiceError(f"the Dagster webserver did not come up; the end of {running.log}:\n{tail}")
        if waited - told >= 10:
            told = waited
            say(f"starting Dagster ... {waited:.0f} s")
        time.sleep(0.5)


def down(root: str | os.PathLike[str], *, only_ray: bool = False) -> list[str]:
    """End what was started for this root; returns the names of what was running."""
    if not folder(root).exists():
        return []
    with _alone(root):
        now, ended = read(root), []
        if now.ui is not None and not only_ray:
            processes.end([now.ui.process])
            ended.append("dagster")
        if now.ray is not None:
            ray_head.end(now.ray)
            ended.append("ray")
        elif _sweep(root):
            ended.append("ray (what was left of it)")
        keep = Services(None, now.ui, now.by) if only_ray and now.ui is not None else None
        if keep is not None:
            _write(root, keep)
        else:
            (folder(root) / "services.json").unlink(missing_ok=True)
        return ended
