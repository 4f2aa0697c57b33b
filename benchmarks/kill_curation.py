"""Kill curation with -9 at random moments, start it again each time, and compare its tables with undisturbed ones.

    python -m benchmarks.kill_curation --root runs/killed --out benchmarks/results/kill_curation.json

A small batch is rendered, then goes through the stages of curation that need no model, once in peace and again and
again with kills: odd ones hit the command, whose children must end by themselves, even ones the whole process
group.  When a root has got to its end its tables are compared and a fresh root is begun, until all kills are
spent.  Equal means: the same bytes in every Parquet file up to its footer (the footer also holds what the run
cost), the same digests of inputs and rows in the footer, and the same bytes in every clip file.
Cost: about 5 s of CPU per kill.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.mutations import CHAIN, config, described
from pipelines.execute import executor, run_stage
from schemas import batches
from schemas.store import Store

BATCH = "one"


def render(folder: Path, videos: int = 2) -> None:
    """A few small videos, a copy of the first, and the second cut short."""
    from tests.videos import make_video, shot, textured

    for number in range(videos):
        frames = shot(10 * number, 60) + shot(10 * number + 1, 50) + [textured(10 * number + 2)] * 40
        make_video(folder / f"{number}.mkv", frames)
    shutil.copy(folder / "0.mkv", folder / "copy.mkv")
    data = (folder / "1.mkv").read_bytes()
    (folder / "short.mkv").write_bytes(data[: len(data) * 2 // 3])


def curate(root: Path, folder: Path, name: str = "local", workers: int = 2) -> None:
    """All stages once; those that are done already are not done again."""
    store, runs = Store(root).create(), executor(name, workers)
    batches.register(store, batches.Batch(name=BATCH, folder=str(folder), kind=batches.FOOTAGE))
    for stage in CHAIN:
        run_stage(stage, store, config(), batch=BATCH, executor=runs)


def contents(root: Path) -> dict[str, tuple[str, str, str]]:
    """Of every table: its bytes before the footer, and what the footer says of rows and inputs."""
    store, found = Store(root), {}
    for stage in CHAIN:
        for table in stage.writes:
            data = Path(store.table_path(table, BATCH)).read_bytes()
            length = int.from_bytes(data[-8:-4], "little")
            commit = store.committed(table, BATCH)
            assert commit is not None
            found[table.name] = (hashlib.sha256(data[: -8 - length]).hexdigest(), commit.content, commit.inputs)
    return found


def blobs(root: Path) -> dict[str, str]:
    """Every clip file by name, with the digest of its bytes."""
    files = sorted(Path(root, "blobs", "clips").rglob("*.mp4"))
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def run_and_kill(root: Path, folder: Path, after_s: float, everything: bool) -> bool:
    """Start curation in a process group of its own and kill it; whether it had ended before."""
    command = [sys.executable, "-m", "benchmarks.kill_curation", "--root", str(root), "--only-curate", str(folder)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0)
    with contextlib.suppress(subprocess.TimeoutExpired):
        code = child.wait(after_s)
        if code:
            raise RuntimeError(f"curation of {root} ended with {code}")
        return True
    if everything:
        os.killpg(child.pid, signal.SIGKILL)
    else:
        child.kill()
    child.wait()
    return False


def kill_often(base: Path, kills: int, seed: int) -> dict[str, Any]:
    """The whole experiment."""
    folder, calm = base / "footage", base / "calm"
    for old in (folder, calm):
        shutil.rmtree(old, ignore_errors=True)
    render(folder)
    began = time.monotonic()
    run_and_kill(calm, folder, 600.0, everything=False)
    took_s = time.monotonic() - began
    want = (contents(calm), blobs(calm))
    draw, spent, compared, differ = random.Random(seed), 0, 0, []
    moments = []
    while spent < kills:
        root = base / f"killed-{compared}"
        shutil.rmtree(root, ignore_errors=True)
        ended = False
        while not ended:
            after_s = draw.uniform(0.3, took_s) if spent < kills else 600.0
            ended = run_and_kill(root, folder, after_s, everything=spent % 2 == 1)
            if not ended:
                spent += 1
                moments.append(round(after_s, 2))
                print(f"kill {spent} of {kills} after {after_s:.1f} s", file=sys.stderr, flush=True)
        compared += 1
        if (contents(root), blobs(root)) != want:
            differ.append(root.name)
        shutil.rmtree(root)
    return {
        "seed": seed,
        "kills": spent,
        "moments_s": moments,
        "undisturbed_s": round(took_s, 1),
        "tables": len(want[0]),
        "clip_files": len(want[1]),
        "roots_compared": compared,
        "roots_that_differ": differ,
    }


def keep(path: Path, runs: list[dict[str, Any]]) -> None:
    """Write the runs of all seeds so far."""
    command = "python -m benchmarks.kill_curation --root runs/killed --kills {kills} --seed {seed}"
    whole = {
        **described("kill_curation", "; ".join(command.format(**r) for r in runs)),
        "kills": sum(r["kills"] for r in runs),
        "roots_compared": sum(r["roots_compared"] for r in runs),
        "roots_that_differ": sum(len(r["roots_that_differ"]) for r in runs),
        "runs": runs,
    }
    path.write_text(json.dumps(whole, indent=1) + "\n")


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--root", type=Path, required=True, help="folder for footage and roots")
    ask.add_argument("--kills", type=int, default=20)
    ask.add_argument("--seed", type=int, default=1)
    ask.add_argument("--out", type=Path, help="also add the result to this JSON file, one run per seed")
    ask.add_argument("--only-curate", type=Path, metavar="FOLDER", help="curate FOLDER once: what is killed")
    words = ask.parse_args()
    if words.only_curate:
        curate(words.root, words.only_curate)
        return 0
    found = kill_often(words.root, words.kills, words.seed)
    print(json.dumps(found, sort_keys=True))
    if words.out:
        words.out.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(words.out.read_text())["runs"] if words.out.exists() else []
        runs = [*(r for r in before if r["seed"] != words.seed), found]
        keep(words.out, runs)
    return 1 if found["roots_that_differ"] else 0


if __name__ == "__main__":
    sys.exit(main())
