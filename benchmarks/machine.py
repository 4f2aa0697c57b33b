"""What a benchmark says of where and how it ran, CPU seconds of commands, and results that are kept.

A machine is described by its processor, cores and memory, never by a name or an address.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestration.machine import processor

RESULTS = Path(__file__).parent / "results"
_PACKAGES = (
    "av", "numpy", "opencv-python-headless", "pyarrow", "scenedetect-headless", "imageio-ffmpeg", "pillow", "torch",
)  # fmt: skip


def ffmpeg() -> str:
    """The ffmpeg of the imageio-ffmpeg wheel: the same binary wherever this runs."""
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


def machine() -> dict[str, Any]:
    """Processor, cores, memory, load and versions."""
    said = subprocess.run([ffmpeg(), "-version"], capture_output=True, text=True, check=True).stdout
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_at_start": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "ffmpeg": said.split()[2],
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def cpu_s() -> float:
    """CPU seconds (user and system) of this process and of the children that ended."""
    own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds that a call took, children included, and its result."""
    start = cpu_s()
    result = run()
    return cpu_s() - start, result


def call(command: Sequence[str]) -> None:
    """Run a command that may complain; what it decodes may be damaged."""
    subprocess.run(list(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def decode_once(path: str) -> float:
    """CPU seconds of `ffmpeg -f null` over the video stream, one decoding thread."""
    ask = [ffmpeg(), "-nostdin", "-loglevel", "quiet", "-threads", "1", "-i", f"file:{path}"]
    return timed(lambda: call([*ask, "-map", "0:v:0", "-an", "-f", "null", "-"]))[0]


def say(text: str) -> None:
    """Progress, to standard error."""
    print(text, file=sys.stderr, flush=True)


def keep(name: str, found: dict[str, Any], command: str, started: dict[str, Any]) -> dict[str, Any]:
    """Write `results/<name>.json` whole and return what it holds."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    record = {"benchmark": name, "date": today, "command": command, "machine": started, **found}
    RESULTS.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=RESULTS, delete=False, suffix=".part") as f:
        json.dump(record, f, indent=1)
        f.write("\n")
    os.chmod(f.name, 0o644)
    os.replace(f.name, RESULTS / f"{name}.json")
    return record


class Stopwatch:
    """Wall seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self) -> float:
        return round(time.monotonic() - self._start, 1)
