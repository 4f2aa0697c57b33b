"""The counterfactual test: does our captioner find a claim likelier than what else could be said in its place?

Two questions about each claim of a caption, both asked of the captioner's own likelihood:

1. *Another caption*: the log-probability of the caption on the clip, less that of the best caption in which this claim
   alone says something else (means over two wordings).  A count is asked by how the caption begins.  Below the
   threshold of its field the claim is contradicted.
2. *Another clip*: how much likelier the caption is on the clip than on the corruptions that would make the claim false
   (`captioner.corrupt`).  A claim that passes 1 and does not fall here is not grounded in what is seen: unverifiable.

Thresholds come from held-out pairs with known truth: of the true claims of a field (apart for captions with one subject
and with several) the given share at most falls below, and a claim that is the likeliest choice is never contradicted.
Where there are too few pairs to say, or where true claims fall so low that too few wrong ones fall lower, the field is
unverifiable.  The verifier is no other model than the captioner, so what both are
blind to stays unseen: the command reports what share of the captioner's own errors it finds.
`captioner/train/verifier.py` asks; this file judges, and is pure.  Source: facts/captioner.md 5.4.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from schemas.captions import Fields
from schemas.claims import COUNT, alternatives, changed
from schemas.language import Claim

SUPPORTED, CONTRADICTED, UNVERIFIABLE = "supported", "contradicted", "unverifiable"
FEWEST = 20
"""True claims of a field that it takes to say anything."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VerifyConfig:
    """How strict the counterfactual test is."""

    false_alarms: float = 0.035
    """Share of true claims of a field that may be contradicted, on the pairs that thresholds come from, (0, 0.5)."""
    power: float = 0.5
    """Share of wrong claims that must fall below a threshold, [0, 1]; where fewer do, nothing is said of the field."""
    pairs: int = 200
    """Held-out pairs to calibrate on at most."""

    def __post_init__(self) -> None:
        if not 0 < self.false_alarms < 0.5 or self.pairs < 1 or not 0 <= self.power <= 1:
            raise ValueError("false_alarms must be in (0, 0.5), pairs at least 1, power in [0, 1]")


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """What was found about one claim."""

    claim: Claim
    several: bool
    """The caption names several subjects."""
    gap: float | None
    """Nats by which the claim beats the best alternative; None if there is none to compare with."""
    rival: str
    """That alternative."""
    fall: float | None
    """Nats that the caption loses on the corruption that it survives best; None if no corruption makes it false."""
    wrong: tuple[float, ...] = ()
    """The gaps that the alternatives would have, were they claimed: what a wrong claim looks like here."""

    @property
    def group(self) -> tuple[str, bool]:
        return self.claim.field, self.several


Thresholds = Mapping[tuple[str, bool], float]


def thresholds(true: Iterable[Evidence], config: VerifyConfig) -> dict[tuple[str, bool], float]:
    """The gap below which a claim is contradicted, by field and number of subjects, from claims that are true.

    A group of too few claims is judged with all of its field.  Groups that are missing are unverifiable.
    """
    gaps: dict[tuple[str, bool], list[float]] = {}
    wrong: dict[tuple[str, bool], list[float]] = {}
    for evidence in true:
        if evidence.gap is not None:
            gaps.setdefault(evidence.group, []).append(evidence.gap)
            wrong.setdefault(evidence.group, []).extend(evidence.wrong)
    found = {}
    for field in {field for field, _ in gaps}:
        groups = {several: gaps.get((field, several), []) for several in (False, True)}
        for several, own in groups.items():
            alone = len(own) >= FEWEST
            values = sorted(own if alone else [*groups[False], *groups[True]])
            if len(values) >= FEWEST:
                allowed = int(config.false_alarms * (len(values) + 1))  # so many true claims may lie below
                bound = min(0.0, values[allowed])
                planted = [g for s in ((several,) if alone else (False, True)) for g in wrong.get((field, s), [])]
                if sum(g < bound for g in planted) >= config.power * max(1, len(planted)):
                    found[field, several] = bound
    return found


def verdict(evidence: Evidence, bounds: Thresholds) -> str:
    """supported, contradicted or unverifiable."""
    bound = bounds.get(evidence.group)
    if bound is None or evidence.gap is None:
        return UNVERIFIABLE
    if evidence.gap < bound:
        return CONTRADICTED
    return SUPPORTED if evidence.fall is None or evidence.fall > 0 else UNVERIFIABLE


def plant(fields: Fields, claim: Claim, rng: np.random.Generator, known: Mapping[str, Sequence[str]]) -> Any:
    """A caption in which one claim says something else, and the wrong claim; None if nothing else can be said.

    A direction is given another direction.  A wrong count goes with as many subjects as it says: the last is left out,
    or one is made up.
    """
    if claim.field == COUNT:
        return _planted_count(fields, rng, known)
    others = [v for v in alternatives(claim, known) if claim.field != "motion" or v.startswith("moving")]
    if not others:
        return None
    value = others[int(rng.integers(len(others)))]
    return changed(fields, claim, value), Claim(claim.field, claim.place, value)


def _planted_count(fields: Fields, rng: np.random.Generator, known: Mapping[str, Sequence[str]]) -> Any:
    count = len(fields.subjects)
    said = [n for v in known.get(COUNT, ()) if v.isdecimal() and (n := int(v)) != count and n > 1]
    if not said:
        return None
    wrong, subjects = said[int(rng.integers(len(said)))], list(fields.subjects)
    while len(subjects) < wrong:
        main = subjects[0]
        color = known["color"][int(rng.integers(len(known["color"])))]
        subjects.append(dataclasses.replace(main, color=color))
    relation = fields.relation or ("left of" if count == 1 else "")
    planted = dataclasses.replace(fields, subjects=subjects[:wrong], relation=relation, events=[])
    return planted, Claim(COUNT, 0, str(wrong))
