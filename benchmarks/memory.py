"""Peak memory of curation against the length of a film: driver and worker, above what their imports take.

A film of each length (a minute of real footage at 320x180, repeated without encoding it again) goes through the stages
videos, scan, shots and signal_scores in a process of its own, with one worker, as `dailies curate --executor local`
does.  The kernel's high-water mark (VmHWM) of both is read after every stage; imports are measured in each process
before the first.  What was measured is kept in the work folder, so that a run that was cut short goes on.

    python -m benchmarks.curation memory --minutes 10 30 60 120
"""

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import footage
from benchmarks.machine import say, timed
from schemas.errors import UsageError

STAGES = ("videos", "scan", "shots", "signal_scores")
MARK_MIB = 1024


def measure(words: argparse.Namespace, work: Path, once: Callable[[str, Callable[[], Any]], Any]) -> dict[str, Any]:
    """All films.  `once` gives what was measured under a name before, or measures it."""
    films = [once(f"{minutes:g}", partial(_one, words, work, minutes)) for minutes in words.minutes]
    most = max(f[who]["above_import_mib"] for f in films for who in ("driver", "worker"))
    return {"size": "320x180", "fps": 24, "stages": STAGES, "films": films, "most_above_import_mib": most,
            "mark_mib": MARK_MIB}  # fmt: skip


def _one(words: argparse.Namespace, work: Path, minutes: float) -> dict[str, Any]:
    folder, root = work / f"memory_{minutes:g}", work / f"memory_{minutes:g}_root"
    folder.mkdir(exist_ok=True)
    film = footage.long_film(words.footage, work, minutes)
    if not (folder / film.name).exists():
        os.symlink(film.resolve(), folder / film.name)
    ask = [sys.executable, "-m", "benchmarks.memory", str(folder), str(root)]
    done = subprocess.run(ask, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UsageError(f"curating {film.name} ended with {done.returncode}")
    found = {"minutes": minutes, **json.loads(done.stdout.splitlines()[-1])}
    say(f"{minutes:g} min: {found}")
    return found


def imported_mib(_: int) -> int:
    """What this process takes after importing all that the stages need, libraries that are loaded late among it."""
    import pipelines.stages  # noqa: F401
    from pipelines.scan.scan import ScanConfig, scan
    from pipelines.video.probe import ProbeConfig, probe

    scan(dataclasses.replace(probe(os.curdir, "absent", 0, ProbeConfig()), is_image=True), ScanConfig())
    return peak_mib(os.getpid())


def peak_mib(process: int) -> int:
    """The most memory that a process has held so far; 0 if it is gone."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    except OSError:
        return 0
    return int(found.group(1)) // 1024 if found else 0


def _children() -> list[int]:
    me = os.getpid()
    return [int(c) for c in Path(f"/proc/{me}/task/{me}/children").read_text().split()]


def _curate(folder: str, root: str) -> dict[str, Any]:
    """The stages over one film in this process and one worker."""
    from benchmarks import memory  # by its name: a worker cannot import `__main__`
    from pipelines.execute import executor, run_stage
    from pipelines.recipes import footage as recipe
    from pipelines.stages import STAGES as ALL
    from schemas import batches
    from schemas.clips import CLIPS
    from schemas.store import Store
    from schemas.videos import FRAMES, SCANS

    local, store = executor("local", 1), Store(root).create()
    batches.register(store, batches.Batch(name="b", folder=folder, kind=batches.FOOTAGE))
    mine = imported_mib(0)
    ((_, its, _),) = local.map(memory.imported_mib, [0])
    known, spent, after, worker = {s.name: s for s in ALL}, 0.0, {}, 0
    for name in STAGES:
        seconds, _ = timed(partial(run_stage, known[name], store, recipe(), batch="b", executor=local))
        spent += seconds
        worker = max([worker, *map(peak_mib, _children())])
        after[name] = {"driver": peak_mib(os.getpid()) - mine, "worker": worker - its}
    (row,) = store.read(SCANS, batch="b").to_pylist()
    frames = store.read(FRAMES, batch="b", columns=["frame_index", "jpeg"])
    return {
        "frames": row["num_frames"], "status": row["status"], "decode_passes": row["decode_passes"],
        "parts": len(list(Path(root).glob("work/scan/*.scan_parts.parquet"))),
        "clips": store.read(CLIPS, batch="b", columns=["clip_id"]).num_rows,
        "proxies": frames.num_rows, "proxies_mib": round(frames["jpeg"].nbytes / 2**20),
        "driver": {"import_mib": mine, "above_import_mib": peak_mib(os.getpid()) - mine},
        "worker": {"import_mib": its, "above_import_mib": worker - its},
        "above_import_after_mib": after,
        "driver_cpu_s": round(spent, 1),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(_curate(sys.argv[1], sys.argv[2])))
