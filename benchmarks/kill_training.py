"""Kill training with -9 at random steps, start it again each time, and compare its last weights with undisturbed ones.

    python -m benchmarks.kill_training --root runs/killed --kills 20

A tiny DiT trains on made-up latents through the real loop (`trainer.train.fit`), in a child process that says each step
as it begins.  The parent waits for a step drawn at random and a moment drawn within it, and kills the child; the next
child goes on from what lies on the disk.  Four kills to a run, then it may end.  Equal means: the same SHA-256 over
weights, average, moments and guard, the same ledger rows, and the same metrics of every step.
With `--full-disk FOLDER` (a small file system, such as `mount -t tmpfs -o size=3m tmpfs FOLDER`) it also trains there
until a snapshot does not fit, and says what training said and whether the snapshot before still loads.
Cost: a few CPU seconds per kill.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, keep, machine, say

STEPS = 120
KILLS_PER_RUN = 4


def train(folder: Path, every_s: float, talk: int | None = None) -> str:
    """Train to the end from what lies in the folder; digest of everything that came of it."""
    from tests.trainer.small_run import trainer
    from trainer.determinism import deterministic
    from trainer.diary import Diary
    from trainer.snapshots import Snapshots
    from trainer.train import fit

    with deterministic(1):
        made = trainer(f"optimizer.steps={STEPS}")
        advance = made.advance

        def talking(capsules: Path | None = None) -> Any:
            if talk is not None:
                os.write(talk, f"{made.step}\n".encode())
            return advance(capsules)

        made.advance = talking  # type: ignore[method-assign]
        ledger = fit(made, Snapshots(folder, every_s))
    sha = hashlib.sha256()
    for name, value in sorted(made.tensors().items()):
        sha.update(name.encode())
        sha.update(value.detach().contiguous().numpy().tobytes())
    sha.update(json.dumps(ledger.to_pylist(), sort_keys=True).encode())
    sha.update(json.dumps(Diary(folder, STEPS).metrics()).encode())
    return sha.hexdigest()


def run(folder: Path, every_s: float, kill_at: int | None, delay_s: float) -> tuple[int, bool]:
    """Train in a child, killed while it is at a step; the last step that it said, and whether it was killed."""
    hears, says = os.pipe()
    child = os.fork()  # torch is imported and has run nothing yet: a fork costs nothing
    if child == 0:
        os.close(hears)
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            (folder / "digest").write_text(train(folder, every_s, says))
            code = 0
        finally:
            os._exit(code)
    os.close(says)
    last = -1
    with os.fdopen(hears) as lines:
        for line in lines:
            last = int(line)
            if kill_at is not None and last >= kill_at:
                time.sleep(delay_s)
                os.kill(child, signal.SIGKILL)
                break
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    if not killed and os.WEXITSTATUS(status):
        raise RuntimeError(f"training in {folder} ended with {os.WEXITSTATUS(status)}")
    return last, killed


def kill_often(base: Path, kills: int, seed: int) -> dict[str, Any]:
    """The whole experiment."""
    draw = random.Random(seed)
    begun = time.monotonic()
    calm = _fresh(base / "calm")
    run(calm, 1e9, None, 0.0)
    a_step_s = (time.monotonic() - begun) / STEPS
    want = (calm / "digest").read_text()
    at: list[int] = []
    digests: list[str] = []
    while len(at) < kills:
        folder = _fresh(base / f"killed-{len(digests)}")
        for step in sorted(draw.sample(range(1, STEPS), min(KILLS_PER_RUN, kills - len(at)))):
            last, killed = run(folder, draw.choice([0.0, 3 * a_step_s]), step, draw.uniform(0, 1.5 * a_step_s))
            if killed:
                at.append(last)
                say(f"kill {len(at)} of {kills} at step {last}")
        run(folder, 1e9, None, 0.0)
        digests.append((folder / "digest").read_text())
    return {
        "seed": seed,
        "steps": STEPS,
        "kills": len(at),
        "killed_at_steps": at,
        "runs_compared": len(digests),
        "runs_that_differ": sum(d != want for d in digests),
        "sha256": want,
    }


def full_disk(folder: Path) -> dict[str, Any]:
    """Train on a file system that is too small for two snapshots."""
    from schemas.errors import ModelError
    from tests.trainer.small_run import trainer
    from trainer.snapshots import Snapshots

    (folder / "ballast").unlink(missing_ok=True)
    run_folder = _fresh(folder / "run")
    made = trainer()
    snapshots = Snapshots(run_folder, 0.0)
    made.train_step()
    snapshots.save(1, made.tensors())
    room = shutil.disk_usage(folder).free
    (folder / "ballast").write_bytes(b"x" * (room - 100_000))
    made.train_step()
    said = ""
    try:
        snapshots.save(2, made.tensors())
    except ModelError as e:
        said = str(e).replace(str(folder), "FOLDER")
    (folder / "ballast").unlink()
    again = trainer()
    again.restore(snapshots)
    for each in (made, again):
        each.close()
    left = sorted(p.name for p in run_folder.iterdir())
    return {"said": said, "restored_step": again.step, "files": left}


def add(found: dict[str, Any], before: dict[str, Any]) -> None:
    """Write the runs of all seeds so far."""
    path = RESULTS / "kill_training.json"
    kept = json.loads(path.read_text())["runs"] if path.exists() else []
    runs = [*(r for r in kept if r["seed"] != found["seed"]), found]
    command = "python -m benchmarks.kill_training --root runs/killed --kills {kills} --seed {seed} --keep"
    whole = {
        "kills": sum(r["kills"] for r in runs),
        "runs_compared": sum(r["runs_compared"] for r in runs),
        "runs_that_differ": sum(r["runs_that_differ"] for r in runs),
        "runs": runs,
    }
    keep("kill_training", whole, "; ".join(command.format(**r) for r in runs), before)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--root", type=Path, required=True, help="folder for the runs")
    ask.add_argument("--kills", type=int, default=20)
    ask.add_argument("--seed", type=int, default=1)
    ask.add_argument("--full-disk", type=Path, metavar="FOLDER", help="a small file system to fill")
    ask.add_argument("--keep", action="store_true", help="add to benchmarks/results/kill_training.json")
    words = ask.parse_args()
    import torch

    import tests.trainer.small_run  # noqa: F401 - what children need is imported once, here

    torch.set_num_threads(1)
    before = machine()
    found = kill_often(words.root, words.kills, words.seed)
    if words.full_disk:
        found["full_disk"] = full_disk(words.full_disk)
    print(json.dumps(found))
    if words.keep:
        add(found, before)
    return 1 if found["runs_that_differ"] else 0


if __name__ == "__main__":
    sys.exit(main())
