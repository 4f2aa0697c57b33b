"""A caption as atomic claims: what each says, where, what else could stand in its place, and the caption without it.

A claim is a (field, place, value): the colour of the second subject, the first event, how many subjects there are.
The count is a claim of captions that name several subjects only; `schemas.language.claims_of` lists them all.
*Changing* a claim keeps all others; *striking* it leaves the caption true but quieter: an unsaid shape becomes
`object`, a wrong count leaves the main subject alone, since it is the others that are in doubt.  Pure.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from schemas.captions import Fields
from schemas.language import OF_SUBJECT, UNCHECKED, UNNAMED, Claim, check

COUNT, RELATION, EVENT, BACKGROUND, CAMERA = "count", "relation", "event", "background", "camera"


def changed(fields: Fields, claim: Claim, value: str) -> Fields:
    """The caption with another value in the claim's place; not for counts, which follow from the subjects.

    A first event is also what the main subject does, so both change.
    """
    if claim.field in OF_SUBJECT:
        subjects = list(fields.subjects)
        subjects[claim.place] = dataclasses.replace(subjects[claim.place], **{claim.field: value})
        events = list(fields.events)
        if claim.field == "motion" and claim.place == 0 and events and events[0] == claim.value and value:
            events[0] = value
        return dataclasses.replace(fields, subjects=subjects, events=events)
    if claim.field == EVENT:
        events = [*fields.events]
        events[claim.place] = value
        if claim.place == 0 and fields.subjects[0].motion == claim.value:
            main = dataclasses.replace(fields.subjects[0], motion=value)
            return dataclasses.replace(fields, events=events, subjects=[main, *fields.subjects[1:]])
        return dataclasses.replace(fields, events=events)
    if claim.field not in (RELATION, BACKGROUND, CAMERA, *UNCHECKED):
        raise ValueError(f"a {claim.field} cannot be changed by itself")
    one: dict[str, Any] = {claim.field: value}
    return dataclasses.replace(fields, **one)


def alternatives(claim: Claim, vocabulary: Mapping[str, Sequence[str]]) -> list[str]:
    """What else could be said in its place.

    Args:
        vocabulary: Values by field.
    """
    known = vocabulary.get("motion" if claim.field == EVENT else claim.field, ())
    return [value for value in known if value and value != claim.value]


def vocabulary(slots: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Values by field, out of those by named slot (`color.0`, `color.1`, ...)."""
    found: dict[str, set[str]] = {}
    for name, values in slots.items():
        found.setdefault(name.partition(".")[0], set()).update(v for v in values if v)
    return {name: sorted(values) for name, values in found.items()}


def struck(fields: Fields, wrong: Iterable[Claim]) -> Fields:
    """The caption without these claims."""
    gone = set(wrong)
    subjects = list(fields.subjects)
    for claim in gone:
        if claim.field in OF_SUBJECT:
            value = UNNAMED if claim.field == "shape" else ""
            subjects[claim.place] = dataclasses.replace(subjects[claim.place], **{claim.field: value})
    relation = "" if any(c.field == RELATION for c in gone) else fields.relation
    if any(c.field == COUNT for c in gone):
        subjects, relation = subjects[:1], ""
    events = [] if any(c.field == EVENT for c in gone) else list(fields.events)
    return check(
        Fields(
            subjects=subjects,
            relation=relation,
            events=events,
            camera="" if any(c.field == CAMERA for c in gone) else fields.camera,
            background="" if any(c.field == BACKGROUND for c in gone) else fields.background,
            **{n: "" if any(c.field == n for c in gone) else getattr(fields, n) for n in UNCHECKED},
        )
    )
