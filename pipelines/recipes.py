"""Recipes of curation: functions that return a whole config."""

import dataclasses
from collections.abc import Callable

from pipelines.clip.model import ClipConfig
from pipelines.config import CurationConfig
from pipelines.policy.rules import CLASSICAL, WITH_CLIP, PolicyConfig, move_bound
from pipelines.synthetic.config import SyntheticConfig
from pipelines.synthetic.pairs import PairsConfig
from pipelines.synthetic.world import WorldConfig

_SMALL_CLIP = ClipConfig(steps=150, image_size=48, width=96, layers=2)
"""About 30 CPU seconds of training; it knows the synthetic world a little, and nothing else."""
_SIMPLE = SyntheticConfig(
    world=WorldConfig(subject_weights=(0.9, 0.08, 0.02), two_events=0.05),
    pairs=PairsConfig(two_subjects=0.08),
)
"""Mostly one subject doing one thing: what a captioner learns in five minutes on one core."""


_FOOTAGE_BOUNDS = ("freeze.max=0.5", "static.min=0.01")
"""Looser than for rendered footage: drawn film has no noise, and holds its pictures for two or three frames."""


def demo() -> CurationConfig:
    """The synthetic world on two CPU cores.

    Run:     dailies demo
    Expect:  44 videos rendered, scanned, scored and judged in a few minutes; about half of the clips kept.
    """
    return CurationConfig(
        synthetic=_SIMPLE,
        clip=_SMALL_CLIP,
        policy=PolicyConfig(rules=move_bound(WITH_CLIP, "too_short.min=1.0")),
    )


def footage() -> CurationConfig:
    """Your own files, classical rules only: no model is needed.

    Run:     dailies curate FOLDER --recipe footage
    Expect:  a row for every file; 1.2 times the CPU time of decoding it once (1.4 times for pictures under 360p),
             and the encoding of what is kept.
    """
    rules = CLASSICAL
    for bound in _FOOTAGE_BOUNDS:
        rules = move_bound(rules, bound)
    return CurationConfig(synthetic=_SIMPLE, clip=_SMALL_CLIP, policy=PolicyConfig(rules=rules))


def thorough() -> CurationConfig:
    """The demo's footage, and more and harder pairs to train and measure a captioner on.

    Run:     dailies captioner train --recipe thorough
    Expect:  16,000 pairs in about two minutes; 1000 more are held out, half of them unseen combinations.
    """
    pairs = PairsConfig(count=16_000, held_out=1000, two_subjects=0.3, two_events=0.25)
    return dataclasses.replace(demo(), synthetic=dataclasses.replace(_SIMPLE, pairs=pairs))


RECIPES: dict[str, Callable[[], CurationConfig]] = {"demo": demo, "footage": footage, "thorough": thorough}
