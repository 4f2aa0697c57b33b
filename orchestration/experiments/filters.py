"""`dailies experiment filters`: which clips to train on, by SQL conditions over the manifest.

Every arm trains for the same steps on the clips that meet its condition, so a strict filter sees its clips more often.
Clips to validate on are drawn before any filter, by their ids: loss on them says what a filter does to the model of the
whole manifest, and a filter that narrows the data may raise it while the videos that people ask for get better.
Where the footage is of the world of known truth, alignment of videos with dense prompts is measured as well.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.ask import Answer, Ask
from orchestration.experiments import alignment, bench, report, validation
from orchestration.experiments.bench import of_arm, run_arms, texts_of
from orchestration.experiments.prompts import READ_BY, asked, chance
from schemas.errors import UsageError
from schemas.manifest import MANIFEST

ALL = "all"


def run(question: Ask, args: argparse.Namespace) -> Answer:
    """Train on each part, look at the same held-out clips and prompts, report."""
    from pipelines.synthetic.probe import probe
    from trainer.experiments.arms import Arm, plain, steps_for
    from trainer.experiments.sampling import Reader
    from trainer.selection import meets

    conditions = parse(args.arm)
    on = bench.bench(question, args)
    manifest = on.store.read(MANIFEST)
    meeting = {name: meets(manifest, where, f"--arm {name}") for name, where in conditions.items()}
    rows, held = validation.held_out(on, args.holdout)
    chosen = {name: [r for r in rows if r["clip_id"] in some] for name, some in meeting.items()}
    for name in chosen:
        if not chosen[name]:
            raise UsageError(f"--arm {name}: none of the {len(rows)} clips to train on meets `{conditions[name]}`")
    steps = args.steps or steps_for(bench.FLOPS, on.settings, rows)
    look = validation.at_the_end(steps, args.clips)
    arms = [
        Arm(
            name=name,
            says=f"{len(some)} of {len(rows)} clips: {conditions[name]}",
            settings=plain(on.settings, steps=steps, seed=seed, threads=on.threads, validation=look),
            rows=some,
            held=held,
            texts=texts_of(on.rows),
        )
        for name, some in chosen.items()
        for seed in on.seeds
    ]
    judged = on.is_rendered
    prompts = asked(question.config().curation.synthetic.prompts, args.prompts, args.seed, ["dense"])
    names = list(conditions)
    wanted = dict.fromkeys(names, prompts.wanted)
    if args.dry_run:
        return bench.forecast(on, arms, wanted, judged)
    runs = run_arms(on, arms, wanted, Reader(READ_BY, probe) if judged else None)
    found: list[dict[str, Any]] = [
        {
            **report.costs(on, name, of_arm(runs, name)),
            **loss,
            "where": conditions[name],
            "seconds_of_footage": round(sum(r["pixel_frames"] * r["seconds_per_frame"] for r in chosen[name]), 1),
        }
        for name, loss in zip(names, validation.measured(on, runs, names))
    ]
    if judged:
        found = [{**a, **m} for a, m in zip(found, alignment.measured(runs, prompts, names, ["dense"]))]
    whole = {
        "arms": found,
        "compared_with": names[0],
        "clips_to_train_on": len(rows),
        "held_out_clips": found[0]["validation_loss"]["n"],
        "interval": f"{validation.INTERVAL}; {alignment.INTERVAL}" if judged else validation.INTERVAL,
        "came_out": came_out(found),
    }
    return report.publish(on, args, whole, _text(whole), _picture(whole), runs)


def parse(texts: Sequence[str]) -> dict[str, str]:
    """Arm to condition, in order; one alone is preceded by every clip.

    Raises:
        UsageError: If one is not NAME=SQL, or a name is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, where = (part.strip() for part in text.partition("="))
        if not equals or not name or not where:
            raise UsageError(f'--arm takes NAME="SQL condition", got `{text}`')
        if name in found:
            raise UsageError(f"--arm `{name}` is given twice")
        found[name] = where
    return {ALL: "true", **found} if len(found) == 1 and ALL not in found else found


def came_out(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the numbers say, in sentences."""
    said = []
    first = arms[0]["name"]
    for a in arms[1:]:
        d = a["loss_against_first"]
        word = "lower" if d["high"] < 0 else "higher" if d["low"] > 0 else "not told apart"
        line = f"`{a['name']}`, {a['clips']} clips: loss on held-out clips {word} against `{first}` ({_signed(d, 4)})"
        if "against_first" in a:
            d = a["against_first"]["dense"]
            word = "higher" if d["low"] > 0 else "lower" if d["high"] < 0 else "not told apart"
            line += f"; alignment {word} ({_signed(d, 3)})"
        said.append(line)
    return said


def _signed(d: Mapping[str, Any], digits: int) -> str:
    return f"{d['value']:+.{digits}f} [{d['low']:+.{digits}f}, {d['high']:+.{digits}f}]"


def _text(found: Mapping[str, Any]) -> str:
    arms = found["arms"]
    judged = "alignment" in arms[0]
    header = ["arm", "condition", "clips", "seconds", "steps", "CPU s", "validation loss", "difference"]
    body = [
        [
            a["name"],
            "`" + a["where"].replace("|", "\\|") + "`",
            f"{a['clips']}",
            f"{a['seconds_of_footage']:.0f}",
            f"{a['steps']}",
            report.spent(a),
            report.interval(a["validation_loss"]),
            report.interval(a["loss_against_first"], sign=True),
            *(
                [
                    report.interval(a["alignment"]["dense"]["all"]),
                    report.interval(a["against_first"]["dense"], sign=True),
                ]
                if judged
                else []
            ),
        ]
        for a in arms
    ]
    parts = [
        f"Loss on {found['held_out_clips']} clips that no arm was trained on. Differences are against "
        f"`{found['compared_with']}`. Intervals: {found['interval']}.",
        report.table([*header, *(["alignment, dense prompts", "difference"] if judged else [])], body),
    ]
    if judged:
        parts.append(alignment.by_attribute(arms, "dense"))
    return report.joined(parts, found["came_out"])


def _picture(found: Mapping[str, Any]) -> bytes:
    from orchestration.experiments.plot import Series, bars, stacked

    arms = found["arms"]
    names = [a["name"] for a in arms]
    losses = [Series("validation loss", [a["validation_loss"] for a in arms])]
    charts = [bars("Filters: loss on held-out clips (95 % intervals)", names, losses, share=False)]
    if "alignment" in arms[0]:
        shares = [Series("dense prompts", [a["alignment"]["dense"]["all"] for a in arms], chance("dense"))]
        charts.append(bars("Share of named attributes that generated videos show (95 % intervals)", names, shares))
    return stacked(charts)
