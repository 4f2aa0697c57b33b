"""Mends an expansion that lost a fact of its prompt: the facts are put back into its record, which is rendered again.

Only what the caption language can say is mended so; words that it cannot carry ("a purple dragon") are kept as the
prompt's own sentence in front of what else the text says and does not contradict them.
"""

import dataclasses

from captioner.expand.facts import Facts
from schemas.captions import Fields, Subject
from schemas.language import UNCHECKED, Unparsable, check, parse, render_dense, variant_of


def merged(asked: Fields, donor: Fields) -> Fields:
    """The prompt's record, with what it does not say taken from the donor."""
    wanted = asked.subjects or donor.subjects
    subjects = []
    for place, subject in enumerate(wanted):
        there = _donor(subject, donor, place)
        named = {n: getattr(subject, n) or getattr(there, n) for n in ("shape", "color", "size", "motion")}
        subjects.append(Subject(**named))
    events = asked.events or donor.events
    if events and subjects and subjects[0].motion not in ("", events[0]):
        events = asked.events
    return Fields(
        subjects=subjects,
        relation=asked.relation or (donor.relation if len(subjects) == len(donor.subjects) > 1 else ""),
        events=events,
        camera=asked.camera or donor.camera,
        background=asked.background or donor.background,
        **{name: getattr(asked, name) or getattr(donor, name) for name in UNCHECKED},
    )


def _donor(subject: Subject, donor: Fields, place: int) -> Subject:
    """The subject of the donor that is most like this one."""
    if not donor.subjects:
        return Subject()
    alike = [sum(_same(subject, there, n) for n in subject.__slots__) for there in donor.subjects]
    best = max(range(len(alike)), key=lambda i: (alike[i], i == place, -i))
    return donor.subjects[best]


def _same(one: Subject, other: Subject, name: str) -> bool:
    return bool(getattr(one, name)) and getattr(one, name) == getattr(other, name)


def repaired(prompt: str, asked: Facts, text: str, variant: int) -> str:
    """A text that keeps the prompt's facts, made from one that does not.

    Args:
        variant: The wording to use where the text's own is not one of the caption language.

    Raises:
        ValueError: If the caption language cannot say it.
    """
    try:
        record = parse(text)
        own = variant_of(text, record)
        variant = variant if own is None else own
    except Unparsable:
        record = Fields(subjects=[], events=[])
    if asked.words:
        return _in_its_own_words(prompt, asked, record, variant)
    return render_dense(check(merged(asked.record, record)), variant)


def _in_its_own_words(prompt: str, asked: Facts, record: Fields, variant: int) -> str:
    """The prompt as a sentence, then what the text says of the setting and the camera where the prompt says nothing."""
    sentence = prompt.strip().rstrip(".")
    first = f"{sentence[0].upper()}{sentence[1:]}."
    bare = Fields(subjects=[Subject(shape="thing")], events=[])
    camera = "" if asked.record.camera else record.camera
    background = "" if asked.record.background else record.background
    scene = render_dense(dataclasses.replace(bare, camera=camera, background=background), variant)
    scene = scene.replace(render_dense(bare, variant), "")
    return f"{first} {' '.join(scene.split())}".strip()
