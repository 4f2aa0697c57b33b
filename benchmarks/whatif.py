"""What-if over ten million generated clips: the query itself, in a warm process, from Parquet on disk.

Random scores, one row per clip, one clip in fifty in a pair of twins, committed batch by batch as the stage `verdicts`
does; then each question is asked once
to warm up and `--repeats` times in earnest.  Nothing is kept in memory between questions but what the operating system
caches of the files.  The number of kept clips is checked against NumPy.

    python -m benchmarks.whatif --rows 10000000 --folder runs/whatif

Prints one JSON object.  Cost: about 3 minutes and 3 GB to generate ten million rows; the folder is removed at the end
unless --keep.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.policy import whatif
from pipelines.policy.rules import CLASSICAL, Rule, move_bound, read_policy
from pipelines.policy.scoreboard import COLUMNS, DOCUMENTED, SCOREBOARD, SEPARATOR, Standing
from pipelines.policy.twins import COLUMN, keys_of, reads_twins
from schemas.scores import DUPLICATES
from schemas.store import Store

ASPECTS = ("16:9", "9:16", "4:3", "1:1", "2.39:1")
_REJECTED = 0.04
"""About this share of the clips falls to each rule as it stands."""
_TWINS = 0.01
"""This share of the clips has a better twin, as many are one."""
QUESTIONS: dict[str, tuple[str, ...]] = {
    "nothing moved": (),
    "one bound moved": ("blur.min=0.15",),
    "one rule on another score": ("score_luma.mean.min=0.1",),
    "three bounds moved": ("blur.min=0.15", "text.max=0.01", "static.min=0.01"),
    "all bounds moved": tuple(
        f"{r.name}.{side}={value * 1.1 if value else 0.1}"
        for r in CLASSICAL
        for side, value in (("min", r.min), ("max", r.max))
        if value is not None
    ),
}


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--rows", type=int, default=10_000_000)
    ask.add_argument("--batches", type=int, default=20)
    ask.add_argument(
        "--distinct", type=int, help="make so many batches; the others are copies of their files (default: all)"
    )
    ask.add_argument("--repeats", type=int, default=5)
    ask.add_argument("--seed", type=int, default=1)
    ask.add_argument("--folder", help="where to generate (default: a temporary folder); what is there is used again")
    ask.add_argument("--keep", action="store_true", help="leave the generated rows there")
    words = ask.parse_args()
    folder = words.folder or tempfile.mkdtemp(prefix="dailies-whatif-")
    store = Store(folder).create()
    try:
        began = time.perf_counter()
        generate(store, words.rows, words.batches, words.seed, words.distinct or words.batches)
        made_s = time.perf_counter() - began
        before_mb = _peak_mb()
        found = {name: measure(store, _rules(bounds), words.repeats) for name, bounds in QUESTIONS.items()}
        found["preset:cosmos"] = measure(store, read_policy("preset:cosmos"), words.repeats)
        print(json.dumps({
            "rows": words.rows,
            "batches": words.batches,
            "distinct_batches": words.distinct or words.batches,
            "rules": len(CLASSICAL),
            "scoreboard_mb": round(store.fs.du(store.at("tables")) / 1e6),
            "generated_in_s": round(made_s, 1),
            "questions": found,
            "slowest_median_s": max(q["median_s"] for q in found.values()),
            "peak_rss_mb": {"after_generating": before_mb, "after_asking": _peak_mb()},
            "machine": machine(),
        }))  # fmt: skip
    finally:
        if not words.keep:
            shutil.rmtree(folder)
    return 0


def _rules(bounds: Sequence[str]) -> tuple[Rule, ...]:
    rules = CLASSICAL
    for bound in bounds:
        rules = move_bound(rules, bound)
    return rules


def generate(store: Store, rows: int, batches: int, seed: int, distinct: int) -> None:
    """Batches of random scores, judged by the rules of the house; what an earlier run left is taken as it is."""
    tables = tuple(sorted({name.split(".")[0] for name in DOCUMENTED}))
    note = Standing(rules=CLASSICAL, tables=tables).as_metric()
    names = [f"b{batch:04d}" for batch in range(batches)]
    there = set(store.batches(SCOREBOARD))
    if there >= set(names):
        return
    pairs = []
    for batch in range(distinct):
        made, twins = _batch(seed, batch, rows * (batch + 1) // batches - rows * batch // batches)
        pairs.append(twins)
        store.commit(SCOREBOARD, made, batch=names[batch], metrics={"policy": note})
        print(f"generated {batch + 1} of {distinct} batches", file=sys.stderr, flush=True)
    for batch in range(distinct, batches):
        here = store.table_path(SCOREBOARD, names[batch])
        os.makedirs(os.path.dirname(here), exist_ok=True)
        shutil.copyfile(store.table_path(SCOREBOARD, names[batch % distinct]), here)
    store.commit(DUPLICATES, pa.concat_tables(pairs))


def _batch(seed: int, batch: int, count: int) -> tuple[pa.Table, pa.Table]:
    """A batch's scoreboard, and its pairs of twins: the first rows, each with one of as many that follow."""
    rng = np.random.default_rng([seed, batch])
    values = {name: rng.random(count) for name in COLUMNS}
    values["score_duration.seconds"] = 1.7 + rng.exponential(6.0, count)
    reject = np.zeros(count, np.int64)
    for i, rule in enumerate(CLASSICAL):
        if reads_twins(rule):
            continue
        score = values[rule.column]
        if rule.name != "too_short":  # so that about one in 25 falls to each rule
            if rule.min is not None:
                score *= rule.min / _REJECTED
            elif rule.max is not None:
                score *= rule.max / (1 - _REJECTED)
        low, high = (-np.inf if rule.min is None else rule.min), (np.inf if rule.max is None else rule.max)
        reject |= ((score < low) | (score > high)).astype(np.int64) << i
    twins = int(count * _TWINS)
    cosine = rng.uniform(0.6, 1.0, twins)
    values[COLUMN] = np.zeros(count)
    values[COLUMN][:twins] = np.where(reject[twins : 2 * twins] == 0, cosine, 0.0)
    for i, rule in enumerate(CLASSICAL):
        if reads_twins(rule):
            reject |= (values[COLUMN] > rule.max).astype(np.int64) << i
    seconds = values["score_duration.seconds"]
    aspect = pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, len(ASPECTS), count, np.int8)), list(ASPECTS))
    names, name = _ids(rng, count), f"b{batch:04d}"
    keys = np.zeros(count, np.int64)
    keys[: 2 * twins] = keys_of(pa.chunked_array([names[: 2 * twins]]))
    plain = {
        "clip_id": names,
        "video_id": _ids(np.random.default_rng(batch), count),
        "aspect": aspect.cast(pa.string()),
        "seconds": pa.array(seconds),
        "verdict": pa.array(np.where(reject == 0, "keep", "reject")),
        "rejected_by": _names(reject),
        "errors_of": pa.array([""] * count),
        "made_by": pa.array([""] * count),
        "twin": pa.array(keys, mask=np.arange(count) >= 2 * twins),
        **{COLUMNS[n]: pa.array(v) for n, v in values.items()},
    }
    pairs = {"clip_id": names[:twins], "kept_clip_id": names[twins : 2 * twins], "cosine": pa.array(cosine)}
    same = {"why": "order", "witness": "pixels", "batch": name, "kept_batch": name, "made_by": ""}
    pairs |= {n: pa.array([text] * twins) for n, text in same.items()}
    pairs |= {n: pa.array(np.zeros(twins)) for n in ("difference", "shift_s")}
    board = pa.table([plain[n] for n in SCOREBOARD.schema.names], schema=SCOREBOARD.schema)
    return board, pa.table([pairs[n] for n in DUPLICATES.schema.names], schema=DUPLICATES.schema)


def _ids(rng: np.random.Generator, count: int) -> pa.Array:
    """Twenty hex digits each, made without a Python string per row."""
    text = rng.bytes(10 * count).hex().encode()
    offsets = pa.py_buffer(np.arange(0, 20 * count + 1, 20, dtype=np.int32))
    return pa.StringArray.from_buffers(count, offsets, pa.py_buffer(text))


def _names(reject: np.ndarray) -> pa.Array:
    """Bits as the rules' names."""
    known = [r.name for r in CLASSICAL]
    texts = [SEPARATOR.join(n for i, n in enumerate(known) if bits >> i & 1) for bits in range(1 << len(known))]
    return pa.DictionaryArray.from_arrays(pa.array(reject.astype(np.int32)), texts).cast(pa.string())


def measure(store: Store, rules: tuple[Rule, ...], repeats: int) -> dict[str, Any]:
    """One warm-up, then the median with all cores; CPU seconds of that, and of one thread alone."""
    found = whatif.answer(whatif.ask(store, rules))
    walls, cpus, alone = [], [], []
    for _ in range(repeats):
        began, used = time.perf_counter(), time.process_time()
        found = whatif.answer(whatif.ask(store, rules))
        walls.append(time.perf_counter() - began)
        cpus.append(time.process_time() - used)
        used = time.process_time()
        whatif.answer(whatif.ask(store, rules, threads=1))
        alone.append(time.process_time() - used)
    kept = _kept_by_numpy(store, rules)
    if kept != found["after"]["keep"]["clips"]:
        raise AssertionError(f"what-if keeps {found['after']['keep']['clips']} clips, NumPy {kept}")
    return {
        "median_s": round(statistics.median(walls), 3),
        "least_s": round(min(walls), 3),
        "most_s": round(max(walls), 3),
        "cpu_s": round(statistics.median(cpus), 3),
        "one_thread_cpu_s": round(statistics.median(alone), 3),
        "kept": kept,
    }


def _kept_by_numpy(store: Store, rules: tuple[Rule, ...]) -> int:
    """The same question, asked plainly; every clip has one twin at most, and it lies in the same batch."""
    kept = 0
    deciding = [r for r in rules if not r.not_applied]
    pairs = store.read(DUPLICATES, columns=["clip_id", "kept_clip_id", "cosine"])
    for batch in store.batches(SCOREBOARD):
        names = sorted({COLUMNS[r.column] for r in deciding} | {"twin", "clip_id"})
        table = store.read(SCOREBOARD, batch=batch, columns=names)
        stays = np.ones(table.num_rows, bool)
        for rule in (r for r in deciding if not reads_twins(r)):
            score = table[COLUMNS[rule.column]].to_numpy()
            stays &= score >= (-np.inf if rule.min is None else rule.min)
            stays &= score <= (np.inf if rule.max is None else rule.max)
        here = pairs.filter(pc.is_in(pairs["clip_id"], table["clip_id"].combine_chunks()))
        worse, better = (pc.index_in(here[n], table["clip_id"]).to_numpy() for n in ("clip_id", "kept_clip_id"))
        like = here["cosine"].to_numpy() * stays[better]
        for rule in filter(reads_twins, deciding):
            stays[worse[like > (np.inf if rule.max is None else rule.max)]] = False
        kept += int(stays.sum())
    return kept


def machine() -> dict[str, Any]:
    """What it ran on."""
    model = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as f:
            model = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), model)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    sys.exit(main())
