"""Kill the captioner with -9 at random moments, in training and in captioning, and compare what it makes in the end.

    python -m benchmarks.kill_captioner --root runs/killed [--kills 20] [--seed 1]

A tiny captioner is trained on a few pairs and captions a few dozen clips, once in peace; then again and again in a
child process that is killed and started anew until it gets through, on fresh roots until all kills are spent: first
during the training (stage `captioner_model`), then during the captioning (stage `captions`).  Equal means: the
same digest of the weights, and the same rows, inputs and `made_by` in the table `captions`.
Children are forked from this process once its libraries are loaded, so that a kill costs no imports.
Cost: about a CPU second per kill.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import keep, machine, say
from captioner.config import CaptionerConfig
from captioner.recipes import tiny
from captioner.stages import CAPTIONER_MODEL, CAPTIONS_STAGE
from pipelines.execute import run_stage
from schemas.captions import CAPTIONS
from schemas.checkpoints import CAPTIONER_CHECKPOINT
from schemas.store import Store

BATCH = "b"
TRAINING, CAPTIONING = "training", "captioning"


def config(steps: int) -> CaptionerConfig:
    """Small enough for seconds, and saved at every step, so that a kill may hit the saving too."""
    base = tiny()
    train = dataclasses.replace(base.train, steps=steps, snapshot_s=0.0)
    decoding = dataclasses.replace(base.decoding, short_tokens=12, dense_tokens=24)
    return dataclasses.replace(base, train=train, decoding=decoding, require_fields=False, batch_size=2)


def prepare(root: Path, clips: int) -> None:
    """A root with pairs and kept clips."""
    from schemas.captions import PAIRS
    from tests.captioner.test_poison import many
    from tests.captioner.worlds import pairs

    shutil.rmtree(root, ignore_errors=True)
    store = many(root, clips)
    store.commit(PAIRS, PAIRS.from_rows(pairs()))


def load_libraries() -> None:
    """What a child would else import for seconds, while nothing happens that a kill could hurt."""
    import tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, NoRepeatNGramLogitsProcessor, PreTrainedTokenizerFast

    torch.set_num_threads(1)
    small = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    with torch.no_grad():
        LlamaForCausalLM(small).generate(torch.tensor([[1]]), max_new_tokens=1, pad_token_id=0)
    assert all((tokenizers, NoRepeatNGramLogitsProcessor, PreTrainedTokenizerFast))


def work(root: Path, phase: str, steps: int) -> None:
    """What is killed."""
    store = Store(root)
    if phase == TRAINING:
        run_stage(CAPTIONER_MODEL, store, config(steps))
    else:
        run_stage(CAPTIONS_STAGE, store, config(steps), batch=BATCH)


def made(root: Path, phase: str) -> tuple[str, ...]:
    """What must not differ."""
    store = Store(root)
    if phase == TRAINING:
        (row,) = store.read(CAPTIONER_CHECKPOINT).to_pylist()
        return row["digest"], row["metrics"], row["made_by"]
    commit = store.committed(CAPTIONS, BATCH)
    assert commit is not None
    return commit.content, commit.inputs, commit.made_by


def run_and_kill(root: Path, phase: str, steps: int, after_s: float) -> bool:
    """Work in a child until it ends or is killed; whether it ended."""
    child = multiprocessing.get_context("fork").Process(target=work, args=(root, phase, steps))
    child.start()
    child.join(after_s)
    if child.is_alive() and child.pid is not None:
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    if child.exitcode == 0:
        return True
    if child.exitcode != -signal.SIGKILL:
        raise RuntimeError(f"{phase} under {root} ended with {child.exitcode}")
    return False


def kill_often(base: Path, phase: str, kills: int, seed: int, *, steps: int, clips: int) -> dict[str, Any]:
    """One phase: an undisturbed root, then killed ones until all kills are spent."""
    load_libraries()
    start, calm, root = base / "start", base / "calm", base / "killed"
    prepare(start, clips)
    if phase == CAPTIONING:
        run_and_kill(start, TRAINING, steps, 600.0)
    shutil.rmtree(calm, ignore_errors=True)
    shutil.copytree(start, calm)
    began = time.monotonic()
    run_and_kill(calm, phase, steps, 600.0)
    took_s = time.monotonic() - began
    want, draw, moments = made(calm, phase), random.Random(seed), []
    compared = differ = 0
    while len(moments) < kills:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(start, root)
        ended = False
        while not ended:
            after_s = draw.uniform(0.02, took_s * 0.7) if len(moments) < kills else 600.0
            ended = run_and_kill(root, phase, steps, after_s)
            moments += [] if ended else [round(after_s, 3)]
        compared += 1
        differ += made(root, phase) != want
        say(f"{phase}: {len(moments)} kills, {compared} roots compared, {differ} differ")
    for folder in (start, calm, root):
        shutil.rmtree(folder)
    return {
        "kills": len(moments),
        "moments_s": moments,
        "undisturbed_s": round(took_s, 2),
        "roots_compared": compared,
        "roots_that_differ": differ,
        "what": "digest of the weights, metrics" if phase == TRAINING else "rows and inputs of `captions`",
    }


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--root", type=Path, required=True, help="folder for the roots")
    ask.add_argument("--kills", type=int, default=20, help="in each of the two phases")
    ask.add_argument("--seed", type=int, default=1)
    ask.add_argument("--steps", type=int, default=40, help="of the training")
    ask.add_argument("--clips", type=int, default=24)
    words = ask.parse_args()
    started = machine()
    found = {
        phase: kill_often(words.root, phase, words.kills, words.seed, steps=words.steps, clips=words.clips)
        for phase in (TRAINING, CAPTIONING)
    }
    command = f"python -m benchmarks.kill_captioner --root runs/killed --kills {words.kills} --seed {words.seed}"
    print(json.dumps(keep("kill_captioner", {"seed": words.seed, **found}, command, started), sort_keys=True))
    return 1 if any(f["roots_that_differ"] for f in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
