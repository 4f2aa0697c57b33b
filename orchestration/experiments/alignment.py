"""Attribute alignment of each arm's videos, with intervals over prompts and differences from the first arm's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestration.experiments import report
from orchestration.experiments.bench import Run, of_arm
from orchestration.experiments.prompts import NAMED, Asked, chance, right
from orchestration.experiments.report import as_dict, per_prompt
from pipelines.synthetic.measure import derangement

INTERVAL = "95 %, percentile bootstrap over prompts; differences over the same prompts"


def measured(runs: Sequence[Run], prompts: Asked, names: Sequence[str], styles: Sequence[str]) -> list[dict[str, Any]]:
    """Of each arm: `alignment` by style and attribute, `control` (the same videos against other prompts), and
    `against_first`, the difference from the first arm on the same prompts."""
    from trainer.experiments.intervals import difference, mean

    order = list(dict.fromkeys(w.prompt_id for w in prompts.wanted))
    others = dict(zip(order, (prompts.attributes[order[i]] for i in derangement(len(order), 0))))
    base: dict[str, np.ndarray] = {}
    found = []
    for name in names:
        arm: dict[str, Any] = {"alignment": {}, "control": {}, "against_first": {}}
        for style in styles:
            parts = per_prompt([right(r.samples, prompts.attributes, style) for r in of_arm(runs, name)])
            shuffled = per_prompt([right(r.samples, others, style) for r in of_arm(runs, name)])
            base.setdefault(style, parts["all"])
            arm["alignment"][style] = {k: as_dict(mean(v)) for k, v in parts.items()}
            arm["control"][style] = as_dict(mean(shuffled["all"]))
            arm["against_first"][style] = as_dict(difference(parts["all"], base[style]))
        found.append(arm)
    return found


def by_attribute(arms: Sequence[Mapping[str, Any]], style: str) -> str:
    """A table of one style's attributes."""
    body = [
        [
            a["name"],
            *(report.interval(a["alignment"][style][n]) for n in NAMED[style]),
            report.interval(a["control"][style]),
        ]
        for a in arms
    ]
    header = ["arm", *NAMED[style], "all, against others' prompts"]
    return f"By attribute, {style} prompts (chance {chance(style):.2f}):\n\n{report.table(header, body)}"
