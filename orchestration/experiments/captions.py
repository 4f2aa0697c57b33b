"""`dailies experiment captions`: DALL-E 3's recaptioning experiment, on this root's clips.

Same clips, seeds and steps; arms differ in which caption a visit reads.  Each arm's model answers the same prompts,
short and dense, from the same noise; alignment is the share of a prompt's attributes that its video shows.  DALL-E 3
found that dense captions help most at 95 %, on short prompts too; whether that holds here is reported as it comes out.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestration.ask import Answer, Ask
from orchestration.experiments import report
from orchestration.experiments.bench import Bench, Run, bench, run_arms, texts_of
from orchestration.experiments.human import with_human
from orchestration.experiments.prompts import NAMED, READ_BY, Asked, asked, chance, right
from orchestration.experiments.report import as_dict, per_prompt
from pipelines.synthetic.measure import derangement
from schemas.errors import UsageError
from schemas.settings import pick

FLOPS = 7.0e12
"""Operations of an arm where no steps are named; about 300 CPU seconds of the demo's model."""
_STYLES = ("short", "dense")


def run(question: Ask, args: argparse.Namespace) -> Answer:
    """Train the arms, sample, compare, report."""
    from pipelines.synthetic.probe import probe
    from trainer.experiments import arms as of_trainer
    from trainer.experiments.sampling import Reader

    policies = of_trainer.caption_policies()
    names = _names(args.arms, policies, of_trainer.SAME_ARM)
    on = bench(question, args)
    on.needs_truth("alignment")
    curation = question.config().curation.synthetic
    told = with_human(on.store, on.rows, curation.evaluation)
    on = dataclasses.replace(on, rows=told.rows)
    prompts = asked(curation.prompts, args.prompts, args.seed)
    steps = args.steps or of_trainer.steps_for(FLOPS, on.settings, on.rows)
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
    runs = run_arms(on, arms, prompts.wanted, Reader(READ_BY, probe))
    found = {"human_texts": dict(told.origins), **measured(on, runs, prompts, names)}
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


def measured(on: Bench, runs: Sequence[Run], prompts: Asked, names: Sequence[str]) -> dict[str, Any]:
    """Alignment of each arm with intervals over prompts, and its difference from the first arm's."""
    from trainer.experiments.intervals import difference, mean

    order = list(dict.fromkeys(w.prompt_id for w in prompts.wanted))
    others = dict(zip(order, (prompts.attributes[order[i]] for i in derangement(len(order), 0))))
    arms: list[dict[str, Any]] = []
    base: dict[str, np.ndarray] = {}
    for name in names:
        mine = [r for r in runs if r.arm.name == name]
        scores: dict[str, Any] = {}
        against: dict[str, Any] = {}
        control: dict[str, Any] = {}
        for style in _STYLES:
            parts = per_prompt([right(r.samples, prompts.attributes, style) for r in mine])
            scores[style] = {k: as_dict(mean(v)) for k, v in parts.items()}
            shuffled = per_prompt([right(r.samples, others, style) for r in mine])
            control[style] = as_dict(mean(shuffled["all"]))
            base.setdefault(style, parts["all"])
            against[style] = as_dict(difference(parts["all"], base[style]))
        arms.append(
            {
                **report.costs(on, name, mine),
                "alignment": scores,
                "control": control,
                "against_first": against,
            }
        )
    return {
        "arms": arms,
        "compared_with": names[0],
        "same_arm": {"blend-95": "dense-95"},
        "chance": {style: chance(style) for style in _STYLES},
        "named_attributes": {k: list(v) for k, v in NAMED.items()},
        "interval": "95 %, percentile bootstrap over prompts; differences over the same prompts",
        "came_out": came_out(arms, names[0]),
    }


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
            f"{a['cpu_s']['training']:.0f} + {a['cpu_s']['sampling']:.0f}",
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
    for style in _STYLES:
        names = [*NAMED[style], "all, against others' prompts"]
        body = [
            [
                a["name"],
                *(report.interval(a["alignment"][style][n]) for n in NAMED[style]),
                report.interval(a["control"][style]),
            ]
            for a in found["arms"]
        ]
        parts.append(f"By attribute, {style} prompts:\n\n{report.table(['arm', *names], body)}")
    parts.append("\n".join(f"- {line}" for line in found["came_out"]))
    return "\n\n".join(parts)


def _picture(found: Mapping[str, Any]) -> bytes:
    from orchestration.experiments.plot import Series, bars

    arms = found["arms"]
    series = [Series(f"{s} prompts", [a["alignment"][s]["all"] for a in arms], found["chance"][s]) for s in _STYLES]
    return bars(
        "Recaptioning: share of named attributes that generated videos show (95 % intervals)",
        [a["name"] for a in arms],
        series,
    )
