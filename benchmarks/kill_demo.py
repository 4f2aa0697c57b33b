"""Kill the demo with -9 at random moments, start it again each time, and compare with a root left in peace.

Odd kills hit the demo's own process; even ones hit everything that it started too (Ray's head and workers, the stages'
processes).  The moments are drawn from the seed, over the time that the undisturbed demo took.

    python -m benchmarks.kill_demo --root runs/killed --beside runs/demo --kills 2 --seed 1 --within-s 700

Cost: the demo's own time, and what the kills threw away.  Exit code 1 if a digest differs.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from orchestration import processes, rooms, services
from schemas.manifest import MANIFEST
from schemas.store import Store


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--root", required=True, help="an empty folder for the demo that is killed")
    ask.add_argument("--beside", required=True, help="the root of a demo that ended in peace, same code and settings")
    ask.add_argument("--kills", type=int, default=2)
    ask.add_argument("--seed", type=int, default=1)
    ask.add_argument("--within-s", type=float, default=700.0, help="the kills fall within this much running time, s")
    words = ask.parse_args()
    if Path(words.root, "tables").exists():
        ask.error(f"{words.root} is not empty: name a new folder")
    draw = random.Random(words.seed)
    moments = sorted(draw.uniform(15.0, words.within_s) for _ in range(words.kills))
    kills, ran_s = [], 0.0
    for number, moment in enumerate(moments, start=1):
        kills.append(_run_and_kill(words.root, moment - ran_s, everything=number % 2 == 0))
        ran_s = moment
        print(f"kill {number} of {words.kills}: {kills[-1]}", file=sys.stderr, flush=True)
    ended = subprocess.run(_command(words.root), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    here, there = _contents(words.root), _contents(words.beside)
    differ = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    found = {
        "seed": words.seed,
        "kills": kills,
        "exit": ended.returncode,
        "manifest": _manifest(words.root),
        "manifest_beside": _manifest(words.beside),
        "tables_compared": len(here),
        "tables_that_differ": differ,
    }
    print(json.dumps(found))
    return 0 if ended.returncode == 0 and found["manifest"] == found["manifest_beside"] else 1


def _command(root: str) -> list[str]:
    return [sys.executable, "-m", "orchestration.cli", "demo", "--root", root]


def _run_and_kill(root: str, after_s: float, *, everything: bool) -> dict[str, object]:
    child = subprocess.Popen(_command(root), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=max(after_s, 1.0))
    family = processes.descendants(child.pid)
    if everything and (head := services.read(root).ray) is not None:
        family += [p for q in head.family for p in (q, *processes.descendants(q.pid))]
    made = len(_contents(root))
    finished_before = child.poll() is not None
    child.kill()
    child.wait()
    for process in family if everything else ():
        if processes.is_alive(process):
            os.kill(process.pid, signal.SIGKILL)
    time.sleep(1.0)
    return {
        "after_s": round(after_s, 1),
        "everything": everything,
        "tables_made": made,
        "too_late": finished_before,
    }


def _contents(root: str) -> dict[str, str]:
    """Digest of every table's rows, by table and batch."""
    store = Store(root)
    found = {}
    for placed, batch in rooms.units(rooms.all_stages(), store):
        for table in placed.stage.writes:
            commit = store.committed(table, batch)
            if commit is not None:
                found[f"{table.name}/{batch or ''}"] = commit.content
    return found


def _manifest(root: str) -> str | None:
    rows = Store(root).read(MANIFEST, columns=["manifest"]).column("manifest").to_pylist()
    return rows[0] if rows else None


if __name__ == "__main__":
    sys.exit(main())
