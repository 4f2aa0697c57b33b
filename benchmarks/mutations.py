"""Real files broken on purpose: every one must end as rows with a status and a reason, with no crash, hang or orphan.

    python -m benchmarks.mutations ../shared/footage --root runs/mutations --out benchmarks/results/mutations.json
    python -m benchmarks.mutations ../shared/footage --root runs/mutations --originals

Bytes are flipped (anywhere, or only in the header), runs of zeros written, blocks removed or repeated, files cut short
or spliced with another.  Batches of `--group` files go through all stages of curation that need no model, with a policy
that keeps every clip, so that the encoder gets its share of broken spans, in child processes with deadlines (60 s
for a source and then some).  A batch that is finished is not done again: with `--groups 3` three more are done and
the command ends; start it again for the rest.  `--originals` takes the files as they are, as far as verdicts.
Cost: about half a second of CPU per broken file.
"""

import argparse
import datetime
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from orchestration import processes
from pipelines import stages
from pipelines.config import CurationConfig
from pipelines.execute import Executor, Local, Stage, reusable, run_stage
from pipelines.policy.rules import PolicyConfig
from pipelines.running import workers
from pipelines.scan.scan import ScanConfig
from pipelines.video.source import list_files, videos_and_sidecars
from schemas import batches
from schemas.clips import CLIP_FILES
from schemas.errors import MissingTable
from schemas.store import Store
from schemas.videos import SCANS, VIDEOS

CHAIN = tuple(
    s
    for s in stages.STAGES
    if s.name in ("videos", "scan", "shots", "signal_scores", "fingerprints", "verdicts", "clip_files")
)
"""Curation without its models."""
KINDS = ("flip", "header", "zeros", "gap", "repeat", "cut", "splice")
SMALL_BYTES, LARGE_BYTES = 100_000, 600_000


def config() -> CurationConfig:
    """Keeps every clip, and waits for nothing longer than about two minutes."""
    everything = tuple(f"{r.name}=off" for r in PolicyConfig().resolved())
    return CurationConfig(policy=PolicyConfig(bounds=everything), scan=ScanConfig(deadline_s=60.0))


def mutate(data: bytes, other: bytes, kind: str, draw: random.Random) -> bytes:
    """One way of breaking a file."""
    size = max(1, len(data))
    at, length = draw.randrange(size), 1 + int(size * draw.random() ** 3 / 4)
    if kind in ("flip", "header"):
        broken = bytearray(data)
        for _ in range(draw.choice((1, 4, 16, 64))):
            if broken:
                broken[draw.randrange(min(len(broken), 2048 if kind == "header" else len(broken)))] = draw.randrange(
                    256
                )
        return bytes(broken)
    if kind == "zeros":
        return data[:at] + bytes(len(data[at : at + length])) + data[at + length :]
    if kind == "gap":
        return data[:at] + data[at + length :]
    if kind == "repeat":
        return data[: at + length] + data[at:]
    if kind == "cut":
        return data[:at]
    return data[:at] + other[draw.randrange(max(1, len(other))) :]


def write_group(source: Path, folder: Path, group: int, size: int, seed: int, small: int = SMALL_BYTES) -> list[str]:
    """Write one group of mutated files; the same ones for the same seed."""
    files, _ = videos_and_sidecars(list_files(str(source)))
    little = [f.path for f in files if 0 < f.size_bytes <= small]
    some = [f.path for f in files if small < f.size_bytes <= LARGE_BYTES] or little
    draw, names = random.Random(f"{seed}/{group}"), []
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(size):
        kind = KINDS[number % len(KINDS)]
        path = draw.choice(some if small == SMALL_BYTES and number % 25 == 24 else little)
        data, other = (source / path).read_bytes(), (source / draw.choice(little)).read_bytes()
        name = f"{number:03d}_{kind}_{Path(path).name}"
        broken = mutate(data, other, kind, draw)
        if not (folder / name).exists():  # a new time of change would be another file
            (folder / name).write_bytes(broken)
        names.append(name)
    return names


def run_group(
    store: Store, folder: Path, name: str, executor: Executor, chain: Sequence[Stage] = CHAIN
) -> dict[str, Any]:
    """One batch through curation, and what became of every file."""
    batches.register(store, batches.Batch(name=name, folder=str(folder), kind=batches.FOOTAGE))
    began = time.monotonic()
    for stage in chain:
        run_stage(stage, store, config(), batch=name, executor=executor)
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return judge(store, folder, name)


def is_done(store: Store, name: str, chain: Sequence[Stage]) -> bool:
    """Whether a batch went through the last stage with this code and these files."""
    try:
        return name in batches.names(store) and all(
            reusable(stage, store, config(), batch=name) is not None for stage in CHAIN
        )
    except MissingTable:
        return False


def judge(store: Store, folder: Path, name: str) -> dict[str, Any]:
    """Counts of every end, and whatever is not as promised."""
    files, _ = videos_and_sidecars(list_files(str(folder)))
    videos = store.read(VIDEOS, batch=name).to_pylist()
    scans = store.read(SCANS, batch=name).to_pylist()
    clips = store.read(CLIP_FILES, batch=name).to_pylist() if store.committed(CLIP_FILES, name) else []
    by_id = {s["video_id"]: s for s in scans}
    wrong = [f"{f.path}: no row" for f in files if f.path not in {v["path"] for v in videos}]
    for video in videos:
        scan = by_id.get(video["video_id"])
        if scan is None:
            wrong.append(f"{video['path']}: not scanned")
        elif scan["status"] != "ok" and not scan["reason"]:
            wrong.append(f"{video['path']}: {scan['status']} without a reason")
    wrong += [f"clip {c['clip_id']}: failed without a reason" for c in clips if c["status"] != "ok" and not c["reason"]]
    reasons = [str(r["reason"]) for r in (*videos, *scans, *clips)]
    return {
        "files": len(files),
        "videos": dict(Counter(v["status"] for v in videos)),
        "scans": dict(Counter(s["status"] for s in scans)),
        "clip_files": dict(Counter(c["status"] for c in clips)),
        "clip_failures": sorted(c["reason"] for c in clips if c["status"] != "ok"),
        "killed_their_worker": sum("WorkerDied" in r for r in reasons),
        "over_deadline": sum("DeadlineExceeded" in r or r.endswith("deadline") for r in reasons),
        "failed_by_an_exception_or_worse": sum("it ended with " in r or "cutting ended with " in r for r in reasons),
        "wrong": wrong,
    }


def add(total: dict[str, Any], one: dict[str, Any]) -> dict[str, Any]:
    """Sums of two results."""
    summed: dict[str, Any] = {}
    for key in one:
        if isinstance(one[key], dict):
            summed[key] = dict(Counter(total.get(key, {})) + Counter(one[key]))
        else:
            summed[key] = total.get(key, type(one[key])()) + one[key]
    return summed


def described(name: str, command: str) -> dict[str, Any]:
    """Which benchmark, when, how, and on what."""
    today = datetime.date.today().isoformat()
    return {"benchmark": name, "date": today, "command": command, "machine": machine()}


def orphans() -> list[str]:
    """Processes that still run below this one after its idle workers were ended."""
    workers.end_idle()
    return [str(p.pid) for p in processes.descendants(os.getpid())]


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("footage", type=Path, help="folder with the files that are broken")
    ask.add_argument("--root", type=Path, required=True, help="where tables and broken files go; reused")
    ask.add_argument("--count", type=int, default=500, help="broken files")
    ask.add_argument("--seed", type=int, default=1)
    ask.add_argument("--group", type=int, default=25, help="files per batch")
    ask.add_argument("--groups", type=int, default=10**6, help="do at most this many unfinished batches, then end")
    ask.add_argument("--originals", action="store_true", help="the whole files as they are, instead of broken ones")
    ask.add_argument("--workers", type=int, default=1, help="child processes")
    ask.add_argument("--out", type=Path, help="also write the result here, as JSON")
    words = ask.parse_args()
    store = Store(words.root).create()
    total: dict[str, Any] = {}
    todo, unfinished = words.groups, 0
    chain = CHAIN[:-1] if words.originals else CHAIN  # encoding them all would take an hour
    count = 1 if words.originals else -(-words.count // words.group)
    for group in range(count):
        name = "originals" if words.originals else f"seed{words.seed}-{group:03d}"
        folder = words.footage if words.originals else words.root / "incoming" / name
        if not words.originals:
            write_group(words.footage, folder, group, min(words.group, words.count - group * words.group), words.seed)
        if not is_done(store, name, chain):
            if not todo:
                unfinished += 1
                continue
            todo -= 1
        found = run_group(store, folder, name, Local(words.workers), chain)
        print(f"{name}: {json.dumps(found)}", file=sys.stderr, flush=True)
        total = add(total, found)
    result = {"seed": words.seed, "unfinished_batches": unfinished, **total, "orphans": orphans()}
    print(json.dumps(result, sort_keys=True))
    if words.out and not unfinished:
        words.out.parent.mkdir(parents=True, exist_ok=True)
        kind = "--originals" if words.originals else f"--count {words.count} --seed {words.seed}"
        about = described("mutations", f"python -m benchmarks.mutations ../shared/footage --root runs/mutations {kind}")
        words.out.write_text(json.dumps({**about, **result}, indent=1) + "\n")
    if unfinished:
        print(f"{unfinished} batches are left: run the same command again", file=sys.stderr)
    return 1 if unfinished or total.get("wrong") or result["orphans"] else 0


if __name__ == "__main__":
    sys.exit(main())
