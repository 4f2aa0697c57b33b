"""`dailies caption replay`: make a sample of captions again, and say which come out otherwise.

The sample is drawn by a hash of (seed, clip), so that it is the same whoever asks.  Each caption is made as the stage
made it, first try and retries, from the frames that the root holds now; then the row is compared with the one in the
table.  Differences have names: `frames` (the proxies changed), `model` (another captioner, prompt or setting is in
use than the one that wrote the row: it is stale, and `dailies caption` makes it again), or the columns that differ.
On one machine with one library version nothing should: decoding is greedy or seeded.  Cost: captioning the sample.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from captioner.describe import Job, captioned, opened
from captioner.stages import CAPTIONS_STAGE, jobs_of, source_of
from pipelines.execute import Context, Local, made_by
from schemas import batches
from schemas.captions import CAPTIONS, Caption, CaptionStatus
from schemas.errors import UsageError
from schemas.ids import digest
from schemas.store import Store

_ORIGIN = ("model", "adapter", "prompt_digest", "frame_spec", "made_by")
_COMPARED = (
    "status", "reason", "short", "dense", "raw_short", "raw_dense", "decoding", "num_tokens", "finish_reason",
    "attempts", "tries",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """A row that came out otherwise."""

    batch: str
    clip_id: str
    what: tuple[str, ...]
    """frames, model, gone (the clip is not kept any more), or columns."""
    before: str
    after: str


def replay(store: Store, config: Any, names: Sequence[str], *, sample: int, seed: int) -> dict[str, Any]:
    """Make up to `sample` captions again.

    Args:
        config: The captioner's whole config.

    Returns:
        The number of rows compared and of those that are equal, and each difference.

    Raises:
        UsageError: If there is no caption to make again.
    """
    drawn = _drawn(store, names, sample, seed)
    if not drawn:
        raise UsageError(f"no caption under {store.root} can be made again: run `dailies caption` first")
    found: list[Difference] = []
    for name in names:
        rows = [row for batch, row in drawn if batch == name]
        if rows:
            found += _batch(store, config, name, rows)
    return {
        "compared": len(drawn),
        "equal": len(drawn) - len(found),
        "stale": sum("model" in d.what for d in found),
        "differ": [dataclasses.asdict(d) for d in found],
        "seed": seed,
    }


def _drawn(store: Store, names: Sequence[str], sample: int, seed: int) -> list[tuple[str, dict[str, Any]]]:
    rows = [(name, row) for name in names for row in store.read(CAPTIONS, batch=name).to_pylist()]
    rows = [(name, row) for name, row in rows if row["status"] != CaptionStatus.FAILED]  # nothing was written
    return sorted(rows, key=lambda r: digest("replay", seed, r[1]["clip_id"]))[:sample]


def _batch(store: Store, config: Any, name: str, rows: Sequence[dict[str, Any]]) -> list[Difference]:
    stage = CAPTIONS_STAGE
    context = Context(
        stage=stage,
        store=store,
        settings=stage.settings(config),
        batch=batches.get(store, name),
        executor=Local(),
        made_by=made_by(stage, store, config, name),
    )
    source = source_of(context)
    jobs = {j.clip_id: j for j in jobs_of(context, source)[0]}
    backend = opened(store.root, source.checkpoint, context.settings)
    found = []
    for row in rows:
        job = jobs.get(row["clip_id"])
        if job is None:
            found.append(Difference(name, row["clip_id"], ("gone",), row["dense"], ""))
            continue
        (again,) = captioned([job], backend, source.spec, source.origin, context.settings)
        if what := differences(row, again, job):
            found.append(Difference(name, row["clip_id"], what, row["raw_dense"], again.raw_dense))
    return found


def differences(before: dict[str, Any], after: Caption, job: Job) -> tuple[str, ...]:
    """What differs between a row and the same made again; where the origin does, the texts are not compared."""
    if before.get("frame_digest") != job.seen:
        return ("frames",)
    plain = dataclasses.asdict(after)
    if any(before.get(c) != plain[c] for c in _ORIGIN):
        return ("model",)
    return tuple(c for c in _COMPARED if before.get(c) != plain[c])
