"""`dailies experiment captions`: DALL-E 3's recaptioning experiment, on this root's clips.

Same clips, seeds and steps; arms differ in which caption a visit reads.  Each arm's model answers the same prompts,
short and dense, from the same noise; alignment is the share of a prompt's attributes that its video shows.  DALL-E 3
found that dense captions help most at 95 %, on short prompts too; whether that holds here is reported as it comes out.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.ask import Answer, Ask
from orchestration.experiments import alignment, bench, report
from orchestration.experiments.bench import of_arm, run_arms, texts_of
from orchestration.experiments.human import with_human
from orchestration.experiments.prompts import NAMED, READ_BY, asked, chance
from schemas.errors import UsageError
from schemas.settings import pick

_STYLES = ("short", "dense")


def run(question: Ask, args: argparse.Namespace) -> Answer:
    """Train the arms, sample, compare, report."""
    from pipelines.synthetic.probe import probe
    from trainer.experiments import arms as of_trainer
    from trainer.experiments.sampling import Reader

    policies = of_trainer.caption_policies()
    names = _names(args.arms, policies, of_trainer.SAME_ARM)
    on = bench.bench(question, args)
    on.needs_truth("alignment")
    curation = question.config().curation.synthetic
    told = with_human(on.store, on.rows, curation.evaluation)
    on = dataclasses.replace(on, rows=told.rows)
    prompts = asked(curation.prompts, args.prompts, args.seed)
    steps = args.steps or of_trainer.steps_for(bench.FLOPS, on.settings, on.rows)
    texts = texts_of(on.rows)
    arms = [
        of_trainer.Arm(
            name=name,
            says=policies[name].says,
            settings=of_trainer.reading(
                of_trainer.plain(on.settings, steps=steps, seed=seed, threads=on.threads), policies[name]
            ),
            rows=on.rows,
            texts=texts,
        )
        for name in names
        for seed in on.seeds
    ]
    wanted = dict.fromkeys(names, prompts.wanted)
    if args.dry_run:
        return bench.forecast(on, arms, wanted)
    runs = run_arms(on, arms, wanted, Reader(READ_BY, probe))
    of_names = alignment.measured(runs, prompts, names, _STYLES)
    measured = [{**report.costs(on, name, of_arm(runs, name)), **m} for name, m in zip(names, of_names)]
    found = {
        "human_texts": dict(told.origins),
        "arms": measured,
        "compared_with": names[0],
        "same_arm": dict(of_trainer.SAME_ARM),
        "chance": {style: chance(style) for style in _STYLES},
        "named_attributes": {k: list(v) for k, v in NAMED.items()},
        "interval": alignment.INTERVAL,
        "came_out": came_out(measured, names[0]),
    }
    return report.publish(on, args, found, _text(found), _picture(found), runs)


def _names(wanted: str | None, known: Mapping[str, Any], same: Mapping[str, str]) -> list[str]:
    """Arms in the order asked, each once; the first is what the others are compared with."""
    if wanted is None:
        return [n for n in known if n != "dense-100"]
    every = {**{n: n for n in known}, **same}
    names = list(dict.fromkeys(pick("arm", n.strip(), every) for n in wanted.split(",") if n.strip()))
    if len(names) < 2:
        raise UsageError(f"--arms names at least two of {', '.join(every)}")
    return names


def came_out(arms: Sequence[Mapping[str, Any]], first: str) -> list[str]:
    """What the numbers say, in sentences."""
    said = []
    for style in _STYLES:
        best = max(arms, key=lambda a: a["alignment"][style]["all"]["value"])
        d = best["against_first"][style]
        end = f"{style} prompts: `{best['name']}` is highest at {best['alignment'][style]['all']['value']:.3f}"
        if best["name"] != first:
            end += f", {d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}] against `{first}`"
            end += "" if d["low"] > 0 else ", which the prompts do not tell from none"
        said.append(end)
    dense = next((a for a in arms if a["name"] == "dense-95"), None)
    if dense is not None and first == "human-short":
        both = [dense["against_first"][s] for s in _STYLES]
        if all(d["low"] > 0 for d in both):
            said.append("DALL-E 3's finding, 95 % dense over the source's texts on both kinds of prompts: reproduced")
        else:
            which = [s for s, d in zip(_STYLES, both) if d["low"] > 0]
            said.append(
                "DALL-E 3's finding, 95 % dense over the source's texts on both kinds of prompts: not reproduced"
                + (f" (it holds on {which[0]} prompts alone)" if which else "")
            )
    return said


def _text(found: Mapping[str, Any]) -> str:
    """The table of the report."""
    header = [
        "arm",
        "reads",
        "steps",
        "CPU s",
        "short prompts",
        "dense prompts",
        "difference, short",
        "difference, dense",
    ]
    body = [
        [
            a["name"],
            a["says"],
            f"{a['steps']}",
            report.spent(a),
            *(report.interval(a["alignment"][s]["all"]) for s in _STYLES),
            *(report.interval(a["against_first"][s], sign=True) for s in _STYLES),
        ]
        for a in found["arms"]
    ]
    parts = [
        "Alignment: share of the attributes named in a prompt that its video shows. Chance "
        f"{found['chance']['short']:.2f} (short), {found['chance']['dense']:.2f} (dense). Differences are against "
        f"`{found['compared_with']}`. Intervals: {found['interval']}. `blend-95` is `dense-95`.",
        report.table(header, body),
    ]
    parts += [alignment.by_attribute(found["arms"], style) for style in _STYLES]
    return report.joined(parts, found["came_out"])


def _picture(found: Mapping[str, Any]) -> bytes:
    from orchestration.experiments.plot import Series, bars

    arms = found["arms"]
    series = [Series(f"{s} prompts", [a["alignment"][s]["all"] for a in arms], found["chance"][s]) for s in _STYLES]
    return bars(
        "Recaptioning: share of named attributes that generated videos show (95 % intervals)",
        [a["name"] for a in arms],
        series,
    )
