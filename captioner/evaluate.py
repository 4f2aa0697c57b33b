"""How true captions are: claims against a record of the truth, counted.

A caption is split into claims; a claim that the truth has too is right, each at most once.  Claims are *bound*: an
attribute is that of one subject, an event has its place in the order.  "A red circle and a blue square" against a
blue circle and a red square is two wrong claims, not none.  Which subject of the caption is which of the truth's is the
pairing under which most claims hold, so the order of naming costs nothing.

precision = right / said, recall = right / true.  A caption is hallucinated if any of its claims is wrong.  `count` and
`order` (of the events) are counted once a caption where there are several.  Intervals are Wilson's, 95 %.  Pure: rows
in, numbers out.
"""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from schemas.captions import Fields
from schemas.language import OF_SUBJECT, UNCHECKED, claims_of

_Z95 = 1.959963984540054
_INVERSE = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
    "partly hiding": "partly hidden by",
    "partly hidden by": "partly hiding",
}
"""What is said of the first and the second, said of the second and the first."""

Bound = Counter[tuple[str, str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """A share with its Wilson interval; of nothing, it is 0 in [0, 1]."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        return self.hits / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        if not self.n:
            return 0.0, 1.0
        centre = self.value + _Z95**2 / (2 * self.n)
        spread = _Z95 * math.sqrt(self.value * (1 - self.value) / self.n + _Z95**2 / (4 * self.n**2))
        scale = 1 + _Z95**2 / self.n
        return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


@dataclasses.dataclass(slots=True)
class Tally:
    """Counts over captions, by field."""

    right: Counter[str] = dataclasses.field(default_factory=Counter)
    said: Counter[str] = dataclasses.field(default_factory=Counter)
    true: Counter[str] = dataclasses.field(default_factory=Counter)
    captions: int = 0
    hallucinated: int = 0
    several: int = 0
    """Captions whose truth has several subjects."""
    several_hallucinated: int = 0
    ordered: int = 0
    """Captions whose truth has several events."""
    ordered_right: int = 0
    """Those that name just these events, in their order."""

    def add(self, caption: Fields | None, truth: Fields) -> None:
        """Count one caption; one that did not parse says nothing."""
        says, holds = match(caption, truth)
        for counter, pairs in ((self.right, says & holds), (self.said, says), (self.true, holds)):
            for (field, _), times in pairs.items():
                counter[field] += times
        wrong, several = bool(says - holds), len(truth.subjects) > 1
        self.captions += 1
        self.hallucinated += wrong
        self.several += several
        self.several_hallucinated += several and wrong
        if len(truth.events) > 1:
            self.ordered += 1
            self.ordered_right += caption is not None and caption.events == truth.events

    def precision(self, field: str | None = None) -> Share:
        return Share(*((c.total() if field is None else c[field]) for c in (self.right, self.said)))

    def recall(self, field: str | None = None) -> Share:
        return Share(*((c.total() if field is None else c[field]) for c in (self.right, self.true)))

    @property
    def f1(self) -> float:
        p, r = self.precision().value, self.recall().value
        return 2 * p * r / (p + r) if p + r else 0.0


def bound(fields: Fields, places: Iterable[int]) -> Bound:
    """A record's claims, with the subject or the place in order that each is of.

    Args:
        places: What each subject counts as, in the order in which the record names them.
    """
    subjects = list(places)
    counted: Bound = Counter()
    turned = len(subjects) > 1 and subjects[0] > subjects[1]
    for claim in claims_of(fields):
        field, value = claim.field, claim.value
        if field in UNCHECKED:
            continue  # no truth knows it
        if field in OF_SUBJECT:
            value = f"{subjects[claim.place]} {value}"
        elif field == "event":
            value = f"{claim.place} {value}"
        elif field == "relation":
            first, second = sorted(subjects[:2]) if len(subjects) > 1 else (0, 1)
            value = f"{first} {_INVERSE.get(value, value) if turned else value} {second}"
        counted[field, value] += 1
    return counted


def match(caption: Fields | None, truth: Fields) -> tuple[Bound, Bound]:
    """Claims of a caption and of the truth, bound by the pairing of subjects under which most hold."""
    holds = bound(truth, range(len(truth.subjects)))
    if caption is None:
        return Counter(), holds
    said, true = len(caption.subjects), len(truth.subjects)
    if max(said, true) > 4:  # 24 pairings; a caption that lists more than that is taken as it comes
        return bound(caption, range(said)), holds
    pairings = itertools.permutations(range(max(said, true)), said)
    options = [bound(caption, p) for p in pairings]
    return max(options, key=lambda says: (says & holds).total()), holds


def tally(pairs: Iterable[tuple[Fields | None, Fields]]) -> Tally:
    """Count (caption, truth) pairs."""
    counted = Tally()
    for caption, truth in pairs:
        counted.add(caption, truth)
    return counted


def report(counted: Tally) -> dict[str, Any]:
    """The keys that `captioner evaluate --json` prints."""
    fields = {field: counted.recall(field) for field in sorted(counted.true)}
    if counted.ordered:
        fields["order"] = Share(counted.ordered_right, counted.ordered)
    one = Share(counted.hallucinated - counted.several_hallucinated, counted.captions - counted.several)
    claimed = {}
    for name, share in (("precision", counted.precision()), ("recall", counted.recall())):
        claimed[name] = round(share.value, 4)
        claimed[f"{name}_low"], claimed[f"{name}_high"] = (round(x, 4) for x in share.interval)
    return {
        "fields": {field: _rounded("accuracy", share) for field, share in fields.items()},
        "claims": {**claimed, "f1": round(counted.f1, 4)},
        "hallucinated_caption_rate": {
            **_rounded("rate", Share(counted.hallucinated, counted.captions)),
            "one_subject": _rounded("rate", one),
            "several_subjects": _rounded("rate", Share(counted.several_hallucinated, counted.several)),
        },
    }


def _rounded(name: str, share: Share) -> dict[str, float]:
    low, high = share.interval
    return {name: round(share.value, 4), "low": round(low, 4), "high": round(high, 4), "n": share.n}
