"""Self-test: how well this install curates footage whose truth is known.

Footage is rendered at a seed on which no threshold was chosen, goes through the real stages (no model is
needed: near-duplicates are found by pixels alone), and is counted against its truth.  `SEED` is kept for that:
thresholds are tuned on seeds 1 to 99, and whoever moves one looks at this seed last.

Defects, copies and damage are planted more densely than in the demo, so that every class has tens of members.
Cost: about 4 CPU minutes at scale 1.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipelines.config import CurationConfig
from pipelines.dedup.stage import DUPLICATES_STAGE
from pipelines.execute import Executor, Result, Stage, run_stage
from pipelines.policy.verdicts import VERDICTS_STAGE
from pipelines.stages import STAGES
from pipelines.synthetic import evaluate
from pipelines.synthetic.edit import FootageConfig
from pipelines.synthetic.evaluate import KINDS, Tallies, Tally
from pipelines.synthetic.footage import FOOTAGE
from pipelines.synthetic.measure import load_batch
from schemas import batches
from schemas.samples import Measure
from schemas.shots import Boundary
from schemas.store import Store

SEED = 20261123
"""No threshold of this project was chosen on it, and nothing that it got wrong was looked at before it was measured."""
BATCH = "selftest"
MARKS: Mapping[str, float] = {
    "boundaries.hard": 0.99, "boundaries.gradual": 0.90, "boundaries.flash": 0.95, "defects": 0.95,
    "near_duplicates": 0.95,
}  # fmt: skip
"""Smallest F1 that passes; `defects` holds for each of them."""
_NUM_VIDEOS = 120
_BOUNDARIES = (*KINDS, "gradual", Boundary.FLASH.value)


def footage_config(seed: int, scale: float) -> FootageConfig:
    """What is rendered: at scale 1, 120 files of 4 or 5 shots."""
    return FootageConfig(
        seed=seed,
        num_videos=max(1, round(_NUM_VIDEOS * scale)),
        min_shots=4,
        max_shots=5,
        gradual=0.45,
        defects_per_video=2.4,
        flashes=0.3,
        copy_every=5,
        corrupt_every=8,
    )


def run(
    store: Store, config: CurationConfig, seed: int, scale: float, executor: Executor, say: Callable[[Result], None]
) -> Tallies:
    """Render, curate, count.

    Args:
        config: The settings under test; only what is rendered is replaced.
        say: Told of every stage that ended.
    """
    folder = store.at("incoming", BATCH)
    batches.register(store, batches.Batch(name=BATCH, folder=folder, kind=batches.SYNTHETIC))
    synthetic = dataclasses.replace(config.synthetic, footage=footage_config(seed, scale))
    config = dataclasses.replace(config, synthetic=synthetic)
    for stage in stages():
        say(run_stage(stage, store, config, batch=BATCH if stage.partitioned else None, executor=executor))
    return count(store, config)


def stages() -> list[Stage]:
    """Rendering, and all that verdicts and near-duplicates must have; what is optional, such as a CLIP, is left out."""
    maker = {table.name: stage for stage in STAGES for table in stage.writes}
    wanted, found = [FOOTAGE, VERDICTS_STAGE, DUPLICATES_STAGE], set[str]()
    while wanted:
        stage = wanted.pop()
        found.add(stage.name)
        wanted += [maker[t.name] for t in stage.reads if maker[t.name].name not in found]
    return [stage for stage in STAGES if stage.name in found]


def count(store: Store, config: CurationConfig) -> Tallies:
    """Tallies by `boundaries.<kind>`, `defects.<name>` and `near_duplicates`."""
    known, tolerances = load_batch(store, BATCH), config.synthetic.evaluation
    found, _ = evaluate.boundaries(known, tolerances)
    policy = evaluate.policy(known, tolerances)
    twins = policy.pop("near_duplicate")
    policy.pop("all")
    return {
        **{f"boundaries.{kind}": found[kind] for kind in _BOUNDARIES},
        **{f"defects.{name}": tally for name, tally in policy.items()},
        "near_duplicates": twins,
    }


def _measures(tallies: Tallies) -> Iterator[tuple[str, Tally, tuple[Measure, Measure, Measure]]]:
    for name, tally in tallies.items():
        precision, recall, f1 = evaluate.measures("selftest", {name: tally})
        yield name, tally, (precision, recall, f1)


def as_json(seed: int, tallies: Tallies) -> dict[str, Any]:
    """`{"seed", "boundaries": {kind: {...}}, "defects": {name: {...}}, "near_duplicates": {...}}`."""
    found: dict[str, Any] = {"seed": seed, "boundaries": {}, "defects": {}}
    for name, tally, (precision, recall, f1) in _measures(tallies):
        row = {"precision": precision.value, "recall": recall.value, "f1": f1.value, "n": tally.wanted}
        group, _, member = name.partition(".")
        if member != "gradual":  # what the two gradual kinds say together
            found[group] = found[group] | {member: row} if member else row
    return found


def as_text(tallies: Tallies) -> str:
    """A table with 95 % Wilson intervals."""
    lines = [f"{'':<24} {'n':>4}  {'precision':<22} {'recall':<22} F1"]
    for name, tally, (precision, recall, f1) in _measures(tallies):
        shown = "-" if f1.value is None else f"{f1.value:.3f}"
        lines.append(f"{name:<24} {tally.wanted:>4}  {_rate(precision):<22} {_rate(recall):<22} {shown}")
    return "\n".join(lines)


def _rate(m: Measure) -> str:
    return "-" if m.value is None else f"{m.value:.3f} [{m.low:.3f}, {m.high:.3f}]"


def below_marks(tallies: Tallies) -> list[str]:
    """What does not reach its mark, in words."""
    missed = []
    for name, _, (_, _, f1) in _measures(tallies):
        mark = MARKS.get(name, MARKS.get(name.partition(".")[0]))
        if mark is not None and f1.value is not None and f1.value < mark:
            missed.append(f"{name}: F1 {f1.value:.3f} is below {mark:g}")
    return missed
