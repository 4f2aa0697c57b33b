"""Which clips to ask a person about: a stratified sample on both sides of each threshold.

The clips that a rule judges are divided by its threshold, and on either side by how far they lie from it: the
nearest quarter, the next 35 %, the rest.  From each of the six strata the same number is drawn.  Near a threshold
is where a label teaches most; far from it is where recall is lost unseen, so it is asked about too, and the
stratum's size gives each answer its weight.

A draw is the clips with the smallest hash of (seed, rule, clip id): new footage changes few of those drawn
before, and no generator state is kept.  Cost: one score column at a time; a second for a million clips.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from pipelines.policy.rules import Rule
from pipelines.policy.scoreboard import COLUMNS, SCOREBOARD, standing
from schemas.ids import digest
from schemas.labels import Design
from schemas.store import Store

STRATA = ("near", "middle", "far")
_CUTS = (0.25, 0.6)
"""Where the strata of a side end, as shares of its clips by distance."""


@dataclasses.dataclass(frozen=True, slots=True)
class Drawn:
    """One question: does this rule's reason hold of this clip?"""

    rule: str
    clip_id: str
    score: float
    rejected: bool
    """The rule rejects it as its bounds stand."""
    stratum: str
    """`reject_near`, ..., `keep_far`."""
    stratum_size: int
    """Clips in the stratum, drawn or not."""


@dataclasses.dataclass(frozen=True, slots=True)
class Judged:
    """All clips that a rule judges."""

    rule: Rule
    ids: np.ndarray
    scores: np.ndarray


def judged(store: Store, batches: Sequence[str] = ()) -> Iterator[Judged]:
    """Every rule that decides somewhere, with the clips it judges; the bounds are those of the last batch asked."""
    names = list(batches) or store.batches(SCOREBOARD)
    rules: dict[str, Rule] = {}
    where: dict[str, list[str]] = {}
    for name in names:
        commit = store.committed(SCOREBOARD, name)
        if commit is None:
            continue
        stands = standing(commit)
        for rule in stands.rules:
            if rule.name not in stands.skipped and not rule.not_applied:
                rules[rule.name] = rule
                where.setdefault(rule.name, []).append(name)
    for name, rule in rules.items():
        column = COLUMNS[rule.column]
        parts = [store.read(SCOREBOARD, batch=b, columns=["clip_id", column]) for b in where[name]]
        ids = np.concatenate([p["clip_id"].to_numpy() for p in parts])
        scores = np.concatenate([p[column].to_numpy() for p in parts]).astype(np.float64)
        known = np.isfinite(scores)
        _, first = np.unique(ids[known].astype(str), return_index=True)  # one file in two batches gives one id twice
        yield Judged(rule, ids[known][first], scores[known][first])


def margin(rule: Rule, scores: np.ndarray) -> np.ndarray:
    """Distance of each score to the nearest bound; negative where the rule rejects."""
    low = scores - rule.min if rule.min is not None else np.full(len(scores), np.inf)
    high = rule.max - scores if rule.max is not None else np.full(len(scores), np.inf)
    return np.minimum(low, high)


def draw(found: Judged, design: Design) -> list[Drawn]:
    """The questions about one rule, in an order that mixes the strata."""
    distance = margin(found.rule, found.scores)
    keys = _keys(found.ids, design.seed, found.rule.name)
    drawn: list[tuple[int, int, Drawn]] = []
    for side, here in (("reject", distance < 0), ("keep", distance >= 0)):
        rows = np.flatnonzero(here)
        rows = rows[
            np.lexsort((keys[rows], np.abs(distance[rows])))
        ]  # ties by hash, so that no stratum has one id's luck
        ends = [0, *(round(c * len(rows)) for c in _CUTS), len(rows)]
        for name, start, end in zip(STRATA, ends, ends[1:]):
            stratum = rows[start:end]
            chosen = stratum[np.argsort(keys[stratum], kind="stable")][: design.per_stratum]
            for place, i in enumerate(chosen):
                question = Drawn(
                    rule=found.rule.name,
                    clip_id=str(found.ids[i]),
                    score=float(found.scores[i]),
                    rejected=side == "reject",
                    stratum=f"{side}_{name}",
                    stratum_size=len(stratum),
                )
                drawn.append((place, int(keys[i]), question))
    return [question for *_, question in sorted(drawn, key=lambda d: d[:2])]


def sample(store: Store, design: Design, batches: Sequence[str] = (), only: str = "") -> list[Drawn]:
    """The questions about every rule (or one), rule by rule."""
    return [q for found in judged(store, batches) if not only or found.rule.name == only for q in draw(found, design)]


def _keys(ids: np.ndarray, seed: int, rule: str) -> np.ndarray:
    """A hash of each id, the same on any machine."""
    import pandas as pd

    return np.asarray(
        pd.util.hash_array(ids.astype(object), hash_key=digest("labels", seed, rule)[:16], categorize=False)
    )
