"""`dailies doctor`: is everything here that a run needs?  One line per check, with what to do where one fails."""

import dataclasses
import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

from orchestration import ray_head, recipes, rooms, services
from schemas.errors import DailiesError
from schemas.store import Store

_PACKAGES = (
    "av", "dagster", "dagster-webserver", "diffusers", "duckdb", "imageio-ffmpeg", "numpy", "open-clip-torch",
    "pyarrow", "ray", "safetensors", "scenedetect-headless", "torch", "transformers",
)  # fmt: skip
_FREE_GB = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    ok: bool
    found: str
    hint: str = ""


def examine(root: str) -> list[Check]:
    """Run all checks; none of them raises."""
    checks: list[Check] = []
    for name, probe in _PROBES:
        try:
            checks += list(probe(root))
        except Exception as e:  # a broken installation is what this looks for
            checks.append(Check(name, False, f"{type(e).__name__}: {e}"))
    return checks


def _python(root: str) -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", sys.version_info >= (3, 11), version, "Python 3.11 or newer is needed")


def _packages(root: str) -> Iterator[Check]:
    missing, found = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    yield Check("packages", not missing, ", ".join(found), f"missing: {', '.join(missing)}; run `make setup`")


def _imports(root: str) -> Iterator[Check]:
    for name in ("cv2", "scenedetect", "torch", "open_clip"):
        code = f"import {name}; print(getattr({name}, '__version__', ''))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180)
        last = (done.stderr.strip().splitlines() or [""])[-1]
        hint = "install opencv-python-headless in place of opencv-python" if "libGL" in last else "run `make setup`"
        yield Check(f"import {name}", done.returncode == 0, done.stdout.strip() or last, hint)


def _ffmpeg(root: str) -> Iterator[Check]:
    code = "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())"
    own = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout.strip()
    path = os.environ.get("DAILIES_FFMPEG") or own or shutil.which("ffmpeg") or ""
    yield Check("ffmpeg", bool(path), path or "none", "`pip install imageio-ffmpeg`, or set DAILIES_FFMPEG")


def _machine(root: str) -> Iterator[Check]:
    path = Store(root)
    folder = path.path if path.is_local else "/"
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    free_gb = shutil.disk_usage(folder).free / 1e9
    yield Check("disk", free_gb > _FREE_GB, f"{free_gb:.0f} GB free at {folder}", f"{_FREE_GB} GB are wanted")
    shared = "/dev/shm"  # noqa: S108 - looked at, not written
    if os.path.isdir(shared):
        shm_gb = shutil.disk_usage(shared).free / 1e9
        yield Check("shared memory", shm_gb > 0.4, f"{shm_gb:.1f} GB free", "in Docker: --shm-size=1g")
    yield Check("cpus", True, str(os.cpu_count()))


def _root(root: str) -> Iterator[Check]:
    try:
        Store(root).create()
        yield Check("root", True, Store(root).root)
    except DailiesError as e:
        yield Check("root", False, str(e))


def _ray(root: str) -> Iterator[Check]:
    head = services.read(root).ray
    mode = os.environ.get("RAY_AUTH_MODE", "token (our default)")
    yield Check("ray auth", mode != "disabled", mode, "RAY_AUTH_MODE=disabled lets every local user run commands")
    if head is None:
        free = ray_head.free_port(8265)
        yield Check("ray", True, f"not running; `dailies up` starts it (port {free} is free)")
    else:
        yield Check("ray", head.answers(), head.dashboard, "`dailies down`, then `dailies up`")


def _code(root: str) -> Iterator[Check]:
    placed = rooms.all_stages()
    yield Check("stages", bool(placed), f"{len(placed)} stages, {sum(len(p.stage.writes) for p in placed)} tables")
    for name in recipes.RECIPES:
        recipes.recipe(name)
    yield Check("recipes", True, ", ".join(recipes.RECIPES))


_PROBES: tuple[tuple[str, Callable[[str], Iterator[Check]]], ...] = (
    ("python", _python),
    ("packages", _packages),
    ("imports", _imports),
    ("ffmpeg", _ffmpeg),
    ("machine", _machine),
    ("root", _root),
    ("ray", _ray),
    ("code", _code),
)


def as_text(checks: list[Check]) -> str:
    """One line per check."""
    lines = []
    for c in checks:
        hint = f"  -> {c.hint}" if not c.ok and c.hint else ""
        lines.append(f"{'ok  ' if c.ok else 'FAIL'}  {c.name:<18} {c.found}{hint}")
    return "\n".join(lines)
