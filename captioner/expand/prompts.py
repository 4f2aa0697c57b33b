"""What people type, made from captions: the (prompt, caption) pairs that the small text model learns from.

A manifest has a short caption to every dense one, but people write neither sentences nor all of one kind.  So a prompt
is the short caption, or some of what the dense one says in free words ("red circle moving left, sand"), in any casing.
Where captions are records, values are now and then swapped for those of other captions, drawn as often as they occur,
in prompt and caption alike: what is copied is then learned from far more combinations than the manifest has.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from schemas.captions import Fields, Subject
from schemas.language import NUM_VARIANTS, render_dense, render_short, split_sentences, variant_of

_SHORT_SHARE = 0.35


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A caption of the manifest."""

    short: str
    dense: str
    record: Fields | None
    """Null for free text."""
    variant: int | None
    """Its wording, where it is one of the caption language."""


def source_of(short: str, dense: str, record: Fields | None) -> Source:
    variant = variant_of(dense, record) if record is not None else None
    return Source(short, dense, record if variant is not None else None, variant)


def pair(sources: Sequence[Source], index: int, rng: np.random.Generator, recombined: float) -> tuple[str, str]:
    """A prompt and the caption that it should become."""
    source = sources[index]
    if source.record is None or source.variant is None:
        return _free_prompt(source, rng), source.dense
    record = source.record
    if rng.random() < recombined:
        record = swapped(record, [s.record for s in sources if s.record is not None], rng)
    try:
        dense = render_dense(record, source.variant)
    except ValueError:  # values that go with their own caption and not with this one: a shape of two words, say
        record = source.record
        dense = render_dense(record, source.variant)
    if len(record.subjects) == 1 and rng.random() < _SHORT_SHARE:  # of several it names one, and none may be added
        return render_short(record, int(rng.integers(NUM_VARIANTS))), dense
    return typed(some_of(record, rng), rng), dense


def swapped(record: Fields, others: Sequence[Fields], rng: np.random.Generator) -> Fields:
    """The record with each value replaced by that of some caption: frequencies stay, combinations change."""

    def drawn() -> Fields:
        return others[int(rng.integers(len(others)))]

    def subject(own: Subject) -> Subject:
        named = {n: getattr(drawn().subjects[0], n) or getattr(own, n) for n in ("shape", "color", "size", "motion")}
        return Subject(**{n: v if getattr(own, n) else "" for n, v in named.items()})

    subjects = [subject(s) for s in record.subjects]
    # a motion may have been struck out of a caption whose events were kept
    events = [subjects[0].motion or record.events[0], *record.events[1:]] if record.events else []
    if len(events) > 1 and events[0] == events[1]:
        events, subjects = (
            list(record.events),
            [dataclasses.replace(subjects[0], motion=record.events[0]), *subjects[1:]],
        )
    return dataclasses.replace(
        record,
        subjects=subjects,
        events=events,
        camera=(drawn().camera or record.camera) if record.camera else "",
        background=(drawn().background or record.background) if record.background else "",
    )


def some_of(record: Fields, rng: np.random.Generator) -> Fields:
    """Part of what a record says: all subjects, and each other thing with some chance."""

    def kept(value: str, chance: float) -> str:
        return value if rng.random() < chance else ""

    subjects = [
        dataclasses.replace(s, color=kept(s.color, 0.85), size=kept(s.size, 0.25), motion=kept(s.motion, 0.65))
        for s in record.subjects
    ]
    return Fields(
        subjects=subjects,
        relation=kept(record.relation, 0.7),
        events=list(record.events) if rng.random() < 0.6 and subjects[0].motion else [],
        camera=kept(record.camera, 0.25),
        background=kept(record.background, 0.3),
    )


def typed(record: Fields, rng: np.random.Generator) -> str:
    """A record as somebody might type it."""
    finite = rng.random() < 0.5
    article = rng.random() < 0.6
    nouns = [_noun(s, article) for s in record.subjects]
    doing = [_motion(s.motion, finite) for s in record.subjects]
    if len(record.events) > 1:
        doing[0] = " then ".join(_motion(e, finite) for e in record.events)
    joint = f" {record.relation} " if record.relation else (" and ", ", ")[int(rng.integers(2))]
    parts = [f"{n} {d}".strip() for n, d in zip(nouns, doing)]
    text = joint.join(parts[:2]) if len(parts) > 1 else parts[0]
    text = " and ".join([text, *parts[2:]])
    if record.background:
        text += (f" on {record.background}", f", {record.background} background", f", {record.background}")[
            int(rng.integers(3))
        ]
    if record.camera:
        camera = _motion(record.camera, finite) if record.camera.split()[0].endswith("ing") else record.camera
        still = camera == record.camera and not record.camera.split()[0].endswith("ing")
        text += f", {camera} camera" if still else f", the camera {camera}"
    if rng.random() < 0.5:
        text = text[0].upper() + text[1:]
    return text + ("." if rng.random() < 0.3 else "")


def _noun(subject: Subject, article: bool) -> str:
    noun = " ".join(w for w in (subject.size, subject.color, subject.shape) if w)
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}" if article else noun


def _motion(motion: str, finite: bool) -> str:
    """`moving left`, or with a finite verb `moves left`."""
    verb, _, rest = motion.partition(" ")
    if not finite or not verb.endswith("ing") or len(verb) < 6:
        return motion
    base = verb[:-3]
    if base[-1] == base[-2] and base[-1] not in "ls":
        base = base[:-1]
    elif base[-1] in "vcgsz":
        base += "e"
    return f"{base}s {rest}".strip()


def _free_prompt(source: Source, rng: np.random.Generator) -> str:
    """The short caption, or a sentence of the dense one, as typed."""
    sentences = split_sentences(source.dense)
    text = source.short if rng.random() < 0.5 or not sentences else sentences[int(rng.integers(len(sentences)))]
    text = text.rstrip(".") if rng.random() < 0.5 else text
    return text[0].lower() + text[1:] if rng.random() < 0.5 else text
