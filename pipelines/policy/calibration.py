"""How well each rule does what it says: precision and recall from labels of a stratified sample, or from known truth.

A rule is a detector of its own reason: *positive* is a clip of which the reason holds (labelled reject), *found* a
clip that the rule rejects.  Estimator: ratio of weighted sums, each answered clip weighing N_h / n_h (clips in its
stratum over answers in it), so that asking more near the threshold biases nothing.  Interval: Wilson, 95 %, at the
effective number of answers, which is the smaller of Kish's (sum w)^2 / sum w^2 and p (1 - p) / variance, with the
variance of the linearised ratio within strata.  No correction for a finite population: the question is how the rule
will do on more such footage.  Skipped clips count as not asked.

The threshold for a wanted precision is chosen on one half of the answers and judged on the other.
Ref: Cochran, Sampling Techniques, 3rd ed., ch. 5 and 6; Korn and Graubard 1998 for the effective number.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.policy.label_sample import Drawn, Judged, margin
from pipelines.policy.rules import Rule
from schemas.labels import Label

ESTIMATOR = (
    "ratio of weighted sums over a stratified sample, weights N_h / n_h; Wilson 95 % interval at the effective number "
    "of answers: the smaller of Kish's and p (1 - p) / variance; truth counts every clip once"
)
_MOST_BOUNDS = 400
"""Bounds that are tried for a wanted precision."""
_Z = 1.959963984540054


@dataclasses.dataclass(frozen=True, slots=True)
class Rate:
    """A share with its interval; None where nothing was asked."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """Answers behind it."""
    n_effective: float

    def as_json(self) -> dict[str, Any]:
        return {k: round(v, 6) if isinstance(v, float) else v for k, v in dataclasses.asdict(self).items()}


@dataclasses.dataclass(frozen=True, slots=True)
class Answers:
    """Answered clips of one rule, as arrays of one length."""

    scores: np.ndarray
    positive: np.ndarray
    """bool: the reason holds."""
    weights: np.ndarray
    strata: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def part(self, rows: np.ndarray) -> "Answers":
        """Some of them, weighing for all of their stratum."""
        kept = Answers(self.scores[rows], self.positive[rows], self.weights[rows], self.strata[rows], self.ids[rows])
        totals = {s: self.weights[self.strata == s].sum() for s in set(self.strata.tolist())}
        counts = {s: (kept.strata == s).sum() for s in totals}
        weights = np.array([totals[s] / counts[s] for s in kept.strata.tolist()])
        return dataclasses.replace(kept, weights=weights)


def answered(drawn: Sequence[Drawn], labels: Mapping[tuple[str, str], str]) -> Answers:
    """The questions that were answered, each with its stratum's size over the answers in it."""
    some = [
        (q, labels[q.rule, q.clip_id]) for q in drawn if labels.get((q.rule, q.clip_id)) in (Label.KEEP, Label.REJECT)
    ]
    counts: dict[str, int] = {}
    for q, _ in some:
        counts[q.stratum] = counts.get(q.stratum, 0) + 1
    return Answers(
        np.array([q.score for q, _ in some], np.float64),
        np.array([label == Label.REJECT for _, label in some], bool),
        np.array([q.stratum_size / counts[q.stratum] for q, _ in some], np.float64),
        np.array([q.stratum for q, _ in some], dtype=object),
        np.array([q.clip_id for q, _ in some], dtype=object),
    )


def known(found: Judged, truth: Mapping[str, bool]) -> Answers:
    """Every clip whose truth is known, each for itself."""
    rows = np.array([i for i, c in enumerate(found.ids) if str(c) in truth], np.int64)
    return Answers(
        found.scores[rows],
        np.array([truth[str(found.ids[i])] for i in rows], bool),
        np.ones(len(rows)),
        np.full(len(rows), "all", dtype=object),
        found.ids[rows],
    )


def wilson(share: float, n: float) -> tuple[float, float]:
    """95 % interval of a share seen in n trials; n need not be whole."""
    if n <= 0:
        return 0.0, 1.0
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * (share * (1 - share) / n + _Z**2 / (4 * n**2)) ** 0.5
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return 0.0 if share <= 0 else low, 1.0 if share >= 1 else high


def ratio(answers: Answers, hit: np.ndarray, among: np.ndarray) -> Rate:
    """The weighted share of `hit` among `among` (both bool, one per answer)."""
    weights, count = answers.weights * among, int(among.sum())
    total = float(weights.sum())
    if not count or total <= 0:
        return Rate(None, None, None, 0, 0.0)
    share = float((weights * hit).sum() / total)
    effective = total**2 / float((weights**2).sum())
    spread = _variance(answers, among * (hit - share)) / total**2
    if spread > 0:
        effective = min(effective, share * (1 - share) / spread)
    low, high = wilson(share, effective)
    return Rate(share, low, high, count, effective)


def _variance(answers: Answers, residual: np.ndarray) -> float:
    """Variance of the weighted sum of residuals of a stratified sample; a stratum with one answer says nothing."""
    total = 0.0
    for stratum in set(answers.strata.tolist()):
        rows = answers.strata == stratum
        n = int(rows.sum())
        if n > 1:
            total += float(answers.weights[rows].sum()) ** 2 / n * float(residual[rows].var(ddof=1))
    return total


def measure(rule: Rule, answers: Answers) -> dict[str, Any]:
    """Precision and recall of a rule at its bounds, and how common its reason is."""
    found = margin(rule, answers.scores) < 0
    everything = np.ones(len(answers), bool)
    precision, recall = ratio(answers, answers.positive, found), ratio(answers, found, answers.positive)
    base = ratio(answers, answers.positive, everything)
    p, r = precision.value, recall.value
    return {
        "precision": precision.as_json(),
        "recall": recall.as_json(),
        "f1": None if r is None else 0.0 if not p or not r else round(2 * p * r / (p + r), 6),
        "base_rate": base.as_json(),
        "better_than_chance": None if precision.low is None or base.value is None else precision.low > base.value,
        "answers": len(answers),
    }


def threshold(rule: Rule, answers: Answers, wanted: float) -> dict[str, Any]:
    """The loosest bound whose precision is as wanted, chosen on half the answers and judged on the other half.

    Only a rule with one bound can be asked; the other bound of a rule with two stays where it is.
    """
    side = "min" if rule.min is not None else "max"
    half = np.array([hashlib.sha256(str(c).encode()).digest()[0] % 2 == 0 for c in answers.ids], bool)
    none = {"side": side, "wanted": wanted, "bound": None, "chosen_on": int(half.sum())}
    if not half.any() or half.all():
        return {**none, "why": "too few answers to choose on one half and judge on the other"}
    chosen, rest = answers.part(half), answers.part(~half)
    best: tuple[float, float, float] | None = None  # recall, precision, and of equals the bound that rejects least
    for bound in candidates(chosen.scores):
        moved = _moved(rule, side, bound)
        if moved is None:
            continue
        found = margin(moved, chosen.scores) < 0
        precision, recall = ratio(chosen, chosen.positive, found), ratio(chosen, found, chosen.positive)
        if precision.value is not None and precision.value >= wanted and recall.value is not None:
            this = (recall.value, precision.value, -bound if side == "min" else bound)
            best = this if best is None else max(best, this)
    if best is None:
        return {**none, "why": f"no bound has a precision of {wanted:g} on these answers"}
    bound = -best[2] if side == "min" else best[2]
    judged = measure(_moved(rule, side, bound) or rule, rest)
    return {
        **none,
        "bound": bound,
        "judged_on": len(rest),
        "precision": judged["precision"],
        "recall": judged["recall"],
    }


def candidates(scores: np.ndarray) -> list[float]:
    """Bounds between neighbouring scores (of many, evenly taken by rank), and beyond both ends."""
    values = np.unique(scores)
    if not len(values):
        return []
    middles = (values[1:] + values[:-1]) / 2
    if len(middles) > _MOST_BOUNDS:
        middles = middles[np.linspace(0, len(middles) - 1, _MOST_BOUNDS).round().astype(int)]
    return [float(values[0] - 1e-9), *(float(m) for m in middles), float(values[-1] + 1e-9)]


def _moved(rule: Rule, side: str, bound: float) -> Rule | None:
    """The rule with another bound; None if its two bounds would cross."""
    if side == "min":
        return dataclasses.replace(rule, min=bound) if rule.max is None or bound <= rule.max else None
    return dataclasses.replace(rule, max=bound) if rule.min is None or bound >= rule.min else None
