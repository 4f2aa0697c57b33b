"""What a captioner is not sure of stays unsaid: the claims that slots stand for, and how leaving them out is learned.

The LM says what it is told of a clip (`model.py`).  For some captions in training a few claims, drawn anew each time,
are neither told nor said, so it learns that what it is not told it leaves out; in use the fields that no head is sure
of are withheld.  A wrong claim then becomes a missing one: precision is bought with recall, claim by claim, and the
price is one setting (`model.sure`).  Only captions that render their record can be told with less; what people wrote
freely is learned as it stands.  Cost: 0.2 ms for each such caption.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from schemas.captions import Fields
from schemas.claims import EVENT, struck
from schemas.language import Claim, claims_of, render_dense, render_short

_EACH = 0.25
"""Chance of each claim to stay unsaid, in a caption that leaves some out."""


def groups_of(names: Sequence[str]) -> dict[str, list[int]]:
    """Slots that are told or withheld together, by the claim that rests on them.

    What a subject does last (`ends`) is no claim, but says the motion of all that do one thing.
    """
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        field, _, place = name.partition(".")
        if field == EVENT:
            groups.setdefault(EVENT, []).append(i)
        else:
            groups.setdefault(f"motion.{place}" if field == "ends" else name, []).append(i)
    return groups


def deciding(names: Sequence[str], group: Sequence[int]) -> list[int]:
    """Those of a group's slots whose belief decides."""
    return [i for i in group if not names[i].startswith("ends.")] or list(group)


def _group(claim: Claim, names: Mapping[str, Any]) -> str:
    of_place = f"{claim.field}.{claim.place}"
    return of_place if of_place in names else claim.field


def leave_out(
    record: Fields, kind: str, wording: int, groups: Mapping[str, Sequence[int]], rng: np.random.Generator
) -> tuple[str, list[int]]:
    """A caption with some claims unsaid, and the slots that stay untold."""
    gone = {name for name, draw in zip(groups, rng.random(len(groups))) if draw < _EACH}
    less = struck(record, [c for c in claims_of(record) if _group(c, groups) in gone])
    text = render_short(less, wording) if kind == "short" else render_dense(less, wording)
    return text, [i for name in groups if name in gone for i in groups[name]]
