"""`dailies experiment scaling`: the same model and data with 1, 4 and 16 times the compute.

Compute grows by steps: each arm has its own full schedule (warm-up and cosine to its own last step), as a run of that
size would have; an early point of a longer run, whose rate is still high, would look worse than it is.  Operations are
counted from what each step saw.  Read off: loss on held-out clips, the same for all arms, and videos of the same
prompts from the same noise.  Source: the Sora report's "base compute, 4x compute, 32x compute".
"""

import argparse
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestration.ask import Answer, Ask
from orchestration.experiments import alignment, report, validation
from orchestration.experiments.bench import Bench, bench, forecast, of_arm, run_arms, texts_of
from orchestration.experiments.prompts import READ_BY, Asked, asked
from schemas.errors import UsageError

if TYPE_CHECKING:
    from trainer.experiments.sampling import Reader

FLOPS = 1.2e12
"""Operations of the smallest arm where no steps are named: 16 times as many are about 15 CPU minutes of the demo's
model."""


def run(question: Ask, args: argparse.Namespace) -> Answer:
    """Train at each compute, look at the same held-out clips and prompts, report."""
    from trainer.experiments.arms import Arm, plain, steps_for

    factors = _factors(args.factors)
    on = bench(question, args)
    rows, held = validation.held_out(on, args.holdout)
    base = args.steps or steps_for(FLOPS / factors[0], on.settings, rows)
    texts = texts_of(on.rows)
    prompts, reader = _prompts(question, args, on, held)
    arms = [
        Arm(
            name=f"{factor}x",
            says=f"{base * factor} steps",
            settings=plain(
                on.settings,
                steps=base * factor,
                seed=seed,
                threads=on.threads,
                validation=validation.at_the_end(base * factor, args.clips),
            ),
            rows=rows,
            held=held,
            texts=texts,
        )
        for factor in factors
        for seed in on.seeds
    ]
    names = [f"{f}x" for f in factors]
    wanted = dict.fromkeys(names, prompts.wanted)
    if args.dry_run:
        return forecast(on, arms, wanted)
    runs = run_arms(on, arms, wanted, reader)
    losses = validation.measured(on, runs, names)
    found: list[dict[str, Any]] = [
        {**report.costs(on, name, of_arm(runs, name)), **loss} for name, loss in zip(names, losses)
    ]
    if prompts.attributes:
        found = [{**a, **m} for a, m in zip(found, alignment.measured(runs, prompts, names, ["dense"]))]
    steps_between = _between(losses)
    whole = {
        "arms": found,
        "factors": list(factors),
        "held_out_clips": losses[0]["validation_loss"]["n"],
        "between_neighbours": steps_between,
        "exponent": exponent([a["flops"] for a in found], [a["validation_loss"]["value"] for a in found]),
        "interval": validation.INTERVAL,
        "came_out": came_out(names, steps_between),
    }
    return report.publish(on, args, whole, _text(whole), _picture(whole), runs)


def _factors(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(f) for f in text.split(","))
    except ValueError as e:
        raise UsageError(f"--factors is whole numbers such as 1,4,16; got `{text}`") from e
    if len(found) < 2 or min(found) < 1 or sorted(set(found)) != list(found):
        raise UsageError(f"--factors is two or more rising numbers such as 1,4,16; got `{text}`")
    return found


def _prompts(
    question: Ask, args: argparse.Namespace, on: Bench, held: Sequence[Mapping[str, Any]]
) -> tuple[Asked, "Reader"]:
    """Prompts of the world of known truth where the footage is of it; elsewhere captions of held-out clips, at their
    own shape, which nothing judges."""
    from trainer.experiments.sampling import Reader, Wanted

    if on.is_rendered:
        from pipelines.synthetic.probe import probe

        config = question.config().curation.synthetic.prompts
        return asked(config, args.prompts, args.seed, ["dense"]), Reader(READ_BY, probe)
    wanted = tuple(
        Wanted(
            prompt_id=r["clip_id"],
            style="dense",
            prompt=r["dense"],
            width=r["pixel_width"],
            height=r["pixel_height"],
            num_frames=r["pixel_frames"],
            seed=args.seed + i,
        )
        for i, r in enumerate(list(held)[: args.prompts])
    )
    return Asked(wanted, {}), Reader("nothing", lambda video: {})


def _between(losses: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By how much each arm's loss is under the one before it, on the same clips."""
    from trainer.experiments.intervals import difference

    pairs = itertools.pairwise(a["loss_of_clips"] for a in losses)
    return [report.as_dict(difference(later, earlier)) for earlier, later in pairs]


def exponent(flops: Sequence[float], losses: Sequence[float]) -> float:
    """Slope of log loss over log operations, by least squares."""
    x, y = [math.log(f) for f in flops], [math.log(v) for v in losses]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y)) / sum((a - mx) ** 2 for a in x)


def came_out(names: Sequence[str], between: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the numbers say, in sentences."""
    said = []
    for a, b, d in zip(names, names[1:], between):
        word = "falls" if d["high"] < 0 else "rises" if d["low"] > 0 else "is not told apart"
        said.append(f"{a} to {b}: validation loss {word} ({d['value']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}])")
    return said


def _text(found: Mapping[str, Any]) -> str:
    arms = found["arms"]
    judged = "alignment" in arms[0]
    header = ["compute", "steps", "operations", "parameters", "CPU s", "validation loss", "difference from the first"]
    body = [
        [
            a["name"],
            f"{a['steps']}",
            f"{a['flops']:.3g}",
            f"{a['parameters']:,}",
            report.spent(a),
            report.interval(a["validation_loss"]),
            report.interval(a["loss_against_first"], sign=True),
            *([report.interval(a["alignment"]["dense"]["all"])] if judged else []),
        ]
        for a in arms
    ]
    parts = [
        f"The same model and clips, more steps; each arm has its own whole schedule. Loss on {found['held_out_clips']} "
        f"held-out clips, the same noise for all. Intervals: {found['interval']}. Loss goes as operations to the power "
        f"of {found['exponent']:.3f}.",
        report.table([*header, *(["alignment, dense prompts"] if judged else [])], body),
    ]
    if judged:
        parts.append(alignment.by_attribute(arms, "dense"))
    return report.joined(parts, found["came_out"])


def _picture(found: Mapping[str, Any]) -> bytes:
    from orchestration.experiments.plot import Series, curve

    arms = found["arms"]
    return curve(
        "Compute scaling: loss on held-out clips (95 % intervals)",
        "training operations (FLOPs), logarithmic",
        [a["flops"] for a in arms],
        [Series("validation loss", [a["validation_loss"] for a in arms])],
        [a["name"] for a in arms],
    )
