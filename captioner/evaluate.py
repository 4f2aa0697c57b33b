"""How true captions are: claims against a record of the truth, counted.

A caption is split into claims, (field, value) pairs; a claim that the truth has too is right, each at most
once.  precision = right / said, recall = right / true.  A caption is hallucinated if any of its claims is wrong.
Intervals are Wilson's, 95 %.  Pure: rows in, numbers out.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from schemas.captions import Fields
from schemas.language import claims

_Z95 = 1.959963984540054


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

    def add(self, caption: Fields | None, truth: Fields) -> None:
        """Count one caption; one that did not parse says nothing."""
        says = Counter(claims(caption)) if caption is not None else Counter()
        holds = Counter(claims(truth))
        for counter, pairs in ((self.right, says & holds), (self.said, says), (self.true, holds)):
            for (field, _), times in pairs.items():
                counter[field] += times
        self.captions += 1
        self.hallucinated += bool(says - holds)

    def precision(self, field: str | None = None) -> Share:
        return Share(*((c.total() if field is None else c[field]) for c in (self.right, self.said)))

    def recall(self, field: str | None = None) -> Share:
        return Share(*((c.total() if field is None else c[field]) for c in (self.right, self.true)))

    @property
    def f1(self) -> float:
        p, r = self.precision().value, self.recall().value
        return 2 * p * r / (p + r) if p + r else 0.0


def tally(pairs: Iterable[tuple[Fields | None, Fields]]) -> Tally:
    """Count (caption, truth) pairs."""
    counted = Tally()
    for caption, truth in pairs:
        counted.add(caption, truth)
    return counted


def report(counted: Tally) -> dict[str, Any]:
    """The keys that `captioner evaluate --json` prints."""
    fields = {}
    for field in sorted(counted.true):
        share = counted.recall(field)
        low, high = share.interval
        fields[field] = {"accuracy": round(share.value, 4), "low": round(low, 4), "high": round(high, 4), "n": share.n}
    wrong = Share(counted.hallucinated, counted.captions)
    low, high = wrong.interval
    return {
        "fields": fields,
        "claims": {
            "precision": round(counted.precision().value, 4),
            "recall": round(counted.recall().value, 4),
            "f1": round(counted.f1, 4),
        },
        "hallucinated_caption_rate": {
            "rate": round(wrong.value, 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "n": wrong.n,
        },
    }
