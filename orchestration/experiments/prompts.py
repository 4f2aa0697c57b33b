"""What the arms of an experiment are asked for: prompts of the world of known truth, in two wordings.

Each prompt is one scene of one subject, worded once as a short caption (its colour, shape and motion) and once as a
dense one (size, background and camera too), with the same noise.  A video is judged by the attributes that its prompt
names and that the probe can read; alignment is the share of them that are right.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.synthetic.probe import ATTRIBUTES, CHANCE
from pipelines.synthetic.prompts import PromptsConfig, make_prompt
from schemas.errors import UsageError
from schemas.language import render_short

if TYPE_CHECKING:
    from trainer.experiments.sampling import Wanted

NAMED: dict[str, tuple[str, ...]] = {
    "short": ("color", "shape", "motion"),
    "dense": ("color", "shape", "motion", "background", "camera"),
}
"""Attributes that a prompt of each style names."""
READ_BY = "probe 1"
"""Raised when `pipelines.synthetic.probe` reads otherwise."""


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """Prompts, and what each of them asks for."""

    wanted: tuple["Wanted", ...]
    attributes: Mapping[str, Mapping[str, str]]
    """Prompt to attribute to value; which of them a style names is in `NAMED`."""


def asked(config: PromptsConfig, count: int, seed: int, styles: Sequence[str] = ("short", "dense")) -> Asked:
    """The first `count` prompts of a seed.

    Raises:
        UsageError: If there would be none.
    """
    from trainer.experiments.sampling import Wanted

    if count < 2:
        raise UsageError(f"--prompts is at least 2, got {count}: an interval needs them")
    config = dataclasses.replace(config, count=count, seed=seed)
    wanted: list[Wanted] = []
    attributes: dict[str, dict[str, str]] = {}
    for i in range(count):
        prompt = make_prompt(config, i)
        assert prompt.fields is not None
        (main,) = prompt.fields.subjects
        texts = {"short": render_short(prompt.fields, i), "dense": prompt.prompt}
        attributes[prompt.prompt_id] = {
            **{name: getattr(main, name) for name in NAMED["short"]},
            "background": prompt.fields.background,
            "camera": prompt.fields.camera,
        }
        for style in styles:
            wanted.append(
                Wanted(
                    prompt_id=prompt.prompt_id,
                    style=style,
                    prompt=texts[style],
                    width=prompt.width,
                    height=prompt.height,
                    num_frames=prompt.num_frames,
                    seed=prompt.seed,
                )
            )
    return Asked(tuple(wanted), attributes)


def right(
    samples: Sequence[Mapping[str, Any]], attributes: Mapping[str, Mapping[str, str]], style: str
) -> dict[str, list[float]]:
    """Attribute to 1 or 0 per video of a style, in the prompts' order; `all` is each video's share.

    Args:
        attributes: What each prompt asks for; another prompt's, for the control.
    """
    some = [s for s in samples if s["style"] == style]
    found = {
        name: [float(s["seen"].get(name) == attributes[s["prompt_id"]][name]) for s in some] for name in NAMED[style]
    }
    return found | {"all": [sum(column) / len(column) for column in zip(*found.values())]}


def chance(style: str) -> float:
    """What guessing would score in `all`."""
    return sum(CHANCE[name] for name in NAMED[style]) / len(NAMED[style])


assert set(NAMED["dense"]) == set(ATTRIBUTES)
