"""Captions per CPU second: the stage `captions` beside a plain `generate` loop, same model, same clips, same texts.

    python -m benchmarks.captioning --root ROOT [--clips 96] [--repeats 3]

The root has a captioner trained by `dailies captioner train` and a batch of kept clips.  The loop is what a model's
tutorial would say: load the model once, then clip by clip decode the JPEGs, see the clip, call `generate` for the short
caption and again for the dense one, decode the ids.  The stage does the same and everything
else that it promises (parsing, retries, provenance, a committed table), from tables to table.  Neither counts
loading Python or the model.  CPU seconds, one thread, the two in turn, medians of the repeats; texts must be equal.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import keep, machine, say, timed
from captioner.describe import Job, captioned, opened
from captioner.frames import pixels
from captioner.jobs import chunked
from captioner.stages import CAPTIONS_STAGE, jobs_of, source_of
from orchestration import recipes
from pipelines.execute import Context, Local, made_by
from schemas import batches
from schemas.captions import CAPTIONS
from schemas.store import Store


def plain_loop(jobs: list[Job], folder: str, spec: Any, settings: Any) -> tuple[float, list[tuple[str, str]]]:
    """CPU seconds, and (short, dense) of each clip: one `generate` at a time."""
    import torch

    from captioner.train.checkpoint import load_checkpoint
    from captioner.train.tokenizer import KIND_ID, decode

    loaded = load_checkpoint(folder)
    torch.set_num_threads(1)

    def caption(job: Job, kind: str) -> str:
        frames = torch.from_numpy(pixels(job.jpegs, spec, job.box)[None])
        ids = loaded.net.write(frames, KIND_ID[kind], max_tokens=settings.decoding.tokens(kind))
        return decode(loaded.tokenizer, ids[0])[0].strip()

    caption(jobs[0], "short")  # the first call sets things up; it is not counted
    return timed(lambda: [(caption(j, "short"), caption(j, "dense")) for j in jobs])


def measure(root: str, batch: str, clips: int, repeats: int) -> dict[str, Any]:
    """Both, in turn."""
    store = Store(root)
    name, remembered = recipes.remembered(root)
    config = recipes.recipe(name or "demo", remembered).captioner
    settings = CAPTIONS_STAGE.settings(config)
    context = Context(
        stage=CAPTIONS_STAGE,
        store=store,
        settings=settings,
        batch=batches.get(store, batch),
        executor=Local(),
        made_by=made_by(CAPTIONS_STAGE, store, config, batch),
    )
    source = source_of(context)
    jobs = sorted(jobs_of(context, source)[0], key=lambda j: j.clip_id)[:clips]
    backend = opened(store.root, source.checkpoint, settings)
    captioned(jobs[:1], backend, source.spec, source.origin, settings)

    def stage() -> dict[str, tuple[str, str]]:
        rows = []
        for chunk in chunked(jobs, settings.batch_size):
            rows += captioned(chunk, backend, source.spec, source.origin, settings)
        with tempfile.TemporaryDirectory() as folder:  # a commit is part of the job
            Store(folder).create().commit(CAPTIONS, CAPTIONS.from_rows(rows), batch=batch)
        return {r.clip_id: (r.raw_short.strip(), r.raw_dense.strip()) for r in rows if r.attempts == 1}

    took: dict[str, list[float]] = {"stage": [], "loop": []}
    equal = compared = 0
    for number in range(repeats):
        seconds, ours = timed(stage)
        loop_seconds, theirs = plain_loop(jobs, store.fetch(source.checkpoint), source.spec, settings)
        took["stage"].append(seconds)
        took["loop"].append(loop_seconds)
        same = [ours[j.clip_id] == texts for j, texts in zip(jobs, theirs) if j.clip_id in ours]
        equal, compared = sum(same), len(same)
        say(f"{number + 1} of {repeats}: stage {seconds:.2f} CPU s, loop {loop_seconds:.2f} CPU s")
    middle = {k: statistics.median(v) for k, v in took.items()}
    return {
        "clips": len(jobs),
        "batch_size": settings.batch_size,
        "model": source.origin.model,
        "cpu_s": {k: [round(x, 3) for x in v] for k, v in took.items()},
        "clips_per_cpu_s": {k: round(len(jobs) / v, 2) for k, v in middle.items()},
        "times_as_fast": round(middle["loop"] / middle["stage"], 2),
        "texts_equal": equal,
        "texts_compared": compared,
        "settings": dataclasses.asdict(settings.decoding),
    }


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--root", required=True)
    ask.add_argument("--batch", help="default: the first with captions")
    ask.add_argument("--clips", type=int, default=96)
    ask.add_argument("--repeats", type=int, default=3)
    words = ask.parse_args()
    started = machine()
    batch = words.batch or Store(words.root).batches(CAPTIONS)[0]
    found = measure(words.root, batch, words.clips, words.repeats)
    command = f"python -m benchmarks.captioning --root {Path(words.root).name} --clips {words.clips}"
    print(json.dumps(keep("captioning", found, command, started), sort_keys=True))
    return 0 if found["times_as_fast"] >= 3 else 1


if __name__ == "__main__":
    sys.exit(main())
