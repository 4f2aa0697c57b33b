"""The language of captions: a record (`Fields`) rendered to plain sentences, and sentences parsed back.

Each sentence states one field or two, so a caption can be split into claims and each claim be checked.  The
grammar knows sentence templates, not words: any colour, shape or motion passes through, as long as it is
made of lowercase words (see `check`).  Only sizes are a closed list, because in "a small red circle" nothing
else tells a size from a colour.  `parse(render_dense(fields, variant)) == fields` for every variant.

Text and record meet here because a caption is a validated record rendered late (DALL-E 3 and its followers
store free text, and can then neither count claims nor re-phrase them).

Lighting, style and text on the screen (`UNCHECKED`) are what general models see and no truth here knows.  What is read
on the screen is quoted as it stands there, so that no word of it is taken for one of the caption.
"""

import dataclasses
import re
from collections.abc import Sequence

from schemas.captions import Fields, Subject

OF_SUBJECT = ("size", "color", "shape", "motion")
"""What is said of each subject."""
SIZES = ("small", "large")
NUM_VARIANTS = 4
UNCHECKED = ("lighting", "style", "on_screen_text")
"""Fields that no truth knows: what they say is neither right nor wrong."""
COUNT_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_RESERVED = frozenset(["is", "that", "which", "then", "it", "and", "the", "a", "an", "behind"])
_NO_MOTION = "in view"  # stands for no motion; no value may be this
UNNAMED = "object"
"""A subject whose shape is not said; that is no claim."""
_VALUE = r"[a-z0-9][a-z0-9' -]*"
_QUOTE = r"[^\"“”`\s](?:[^\"“”`\n\r\t]*[^\"“”`\s])?"
_ON_SCREEN = re.compile(rf'(?:The screen reads|On the screen stands) "{_QUOTE}"')
_NOUN = rf"(?:an?) (?P<noun>{_VALUE}?)"


class Unparsable(ValueError):
    """A text is not a dense caption of this grammar; says which sentence, and why."""


def check(fields: Fields) -> Fields:
    """Return the fields, or say which value the grammar could not carry.

    A value is made of lowercase words and has none of the words that hold sentences together (`is`, `then`,
    ...).  A colour is one word; a shape of several words needs a colour in front of it.
    """
    if not 1 <= len(fields.subjects) < len(COUNT_WORDS):
        raise ValueError(f"a caption has 1 to {len(COUNT_WORDS) - 1} subjects, got {len(fields.subjects)}")
    for field, value in claims(fields):
        if field == "on_screen_text":
            _check_on_screen(value)
        elif field != "count":
            _check_value(field, value)
    for subject in fields.subjects:
        if not subject.shape:
            raise ValueError("a subject needs a shape")
        if subject.size not in ("", *SIZES):
            raise ValueError(f"a size is one of {SIZES} or empty, got `{subject.size}`")
        if " " in subject.color or subject.color in SIZES:
            raise ValueError(f"a colour is one word that is no size, got `{subject.color}`")
        if not subject.color and (" " in subject.shape or subject.shape in SIZES):
            raise ValueError(f"a shape of several words needs a colour, got `{subject.shape}`")
    if not all(fields.events):
        raise ValueError("an event cannot be empty")
    return fields


def _check_value(field: str, value: str) -> None:
    words = value.split(" ")
    if not re.fullmatch(_VALUE, value) or not all(words) or _RESERVED & set(words) or value == _NO_MOTION:
        raise ValueError(f"`{value}` cannot be the {field} of a caption: use plain lowercase words")


def _check_on_screen(value: str) -> None:
    if not re.fullmatch(_QUOTE, value) or not value.isprintable():
        raise ValueError("text on the screen is one printable line without double quotes or backticks")


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Claim:
    """One thing that a caption says."""

    field: str
    place: int
    """Which subject or event, from 0; 0 for what the scene has one of."""
    value: str


def claims_of(fields: Fields) -> list[Claim]:
    """What a record asserts, in reading order; a count only where there are several subjects."""
    found = [Claim("count", 0, str(len(fields.subjects)))] if len(fields.subjects) > 1 else []
    for place, subject in enumerate(fields.subjects):
        found += [Claim(name, place, getattr(subject, name)) for name in OF_SUBJECT]
    found.append(Claim("relation", 0, fields.relation))
    found += [Claim("event", place, event) for place, event in enumerate(fields.events)]
    found += [Claim(name, 0, getattr(fields, name)) for name in ("background", "camera", *UNCHECKED)]
    return [c for c in found if c.value and (c.field, c.value) != ("shape", UNNAMED)]


def claims(fields: Fields) -> list[tuple[str, str]]:
    """The same as (field, value)."""
    return [(c.field, c.value) for c in claims_of(fields)]


def variant_of(text: str, fields: Fields, *, short: bool = False) -> int | None:
    """Which wording of a record a dense (or short) caption is; None if it is none of them."""
    told = render_short if short else render_dense
    try:
        return next((v for v in range(NUM_VARIANTS) if told(fields, v) == text), None)
    except ValueError:  # a record that the language cannot carry
        return None


def render_short(fields: Fields, variant: int = 0) -> str:
    """One sentence on the main subject: its colour, shape and motion."""
    main = check(fields).subjects[0]
    return _subject(Subject(shape=main.shape, color=main.color, motion=main.motion), variant % NUM_VARIANTS)


def render_dense(fields: Fields, variant: int = 0) -> str:
    """Everything the record says, in sentences; the variant chooses wording and order."""
    check(fields)
    v = variant % NUM_VARIANTS
    subjects = [_subject(subject, v) for subject in fields.subjects]
    count = COUNT_WORDS[len(subjects)]
    head = [(f"{count.capitalize()} subjects are visible.", f"There are {count} subjects.")[v % 2]] * (
        len(subjects) > 1
    )
    relation = [f"The first is {fields.relation} the second."] if fields.relation else []
    events = [_events(fields.events, v, len(subjects))] if fields.events else []
    background, camera = _setting(fields, v)
    looks = _looks(fields, v)
    if v == 3:
        return " ".join([*background, *head, *subjects, *relation, *events, *camera, *looks])
    return " ".join([*head, *subjects, *relation, *events, *background, *camera, *looks])


def _subject(subject: Subject, v: int) -> str:
    noun = " ".join(word for word in (subject.size, subject.color, subject.shape) if word)
    noun = f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
    motion = subject.motion
    if v == 0:
        return f"{noun[0].upper()}{noun[1:]} is {motion or _NO_MOTION}."
    if v == 1:
        return f"There is {noun}, which is {motion}." if motion else f"There is {noun}."
    if v == 2:
        return f"We see {noun} that is {motion}." if motion else f"We see {noun}."
    return f"In view is {noun}, {motion}." if motion else f"In view is {noun}."


def _events(events: Sequence[str], v: int, subjects: int) -> str:
    if v % 2 or subjects > 1:  # after several subjects "it" would be anyone's
        return f"In order, the first subject is {', then '.join(events)}."
    return f"First it is {', then it is '.join(events)}."


def _setting(fields: Fields, v: int) -> tuple[list[str], list[str]]:
    if v == 2 and fields.background and fields.camera:
        return [f"The background is {fields.background} and the camera is {fields.camera}."], []
    background = ("The background is {}.", "Behind is {}.", "The background is {}.", "The scene has {} behind.")[v]
    camera = (
        "The camera is {}.",
        "Meanwhile the camera is {}.",
        "The camera is {}.",
        "It is seen by a camera that is {}.",
    )
    return (
        [background.format(fields.background)] if fields.background else [],
        [camera[v].format(fields.camera)] if fields.camera else [],
    )


def _looks(fields: Fields, v: int) -> list[str]:
    """What no truth knows, each in a sentence of its own."""
    lighting = ("The lighting is {}.", "The light is {}.")[v % 2]
    style = ("The style is {}.", "In style it is {}.")[v % 2]
    reads = ('The screen reads "{}".', 'On the screen stands "{}".')[v % 2]
    told = zip((lighting, style, reads), (getattr(fields, name) for name in UNCHECKED))
    return [template.format(value) for template, value in told if value]


def parse(text: str) -> Fields:
    """Read a dense caption back into its record.

    Raises:
        Unparsable: If a sentence fits no template, says a field twice, or the count is not that of the subjects.
    """
    said: dict[str, list[str]] = {}
    subjects: list[Subject] = []
    for sentence in _sentences(text):
        groups = _match(sentence)
        noun = groups.pop("noun", "")
        if noun:
            subjects.append(_read_noun(noun, groups.pop("motion", ""), sentence))
        for field, value in groups.items():
            if field in said:
                raise Unparsable(f"the {field} is said twice, the second time in `{sentence}`")
            said[field] = re.split(r", then (?:it is )?", value) if field == "events" else [value]
    _check_count(said.pop("count", ["one"])[0], len(subjects))
    return Fields(
        subjects=subjects,
        relation=said.get("relation", [""])[0],
        events=said.get("events", []),
        camera=said.get("camera", [""])[0],
        background=said.get("background", [""])[0],
        **{name: said.get(name, [""])[0] for name in UNCHECKED},
    )


def split_sentences(text: str) -> list[str]:
    """The sentences of a caption, in order; CLIP scores them one by one.  Text on the screen is not split."""
    text = text.strip()
    quoted = [m.span() for m in _ON_SCREEN.finditer(text)]
    found, start = [], 0
    for gap in re.finditer(r"(?<=[.!?])\s+", text):
        if not any(a < gap.start() < b for a, b in quoted):
            found.append(text[start : gap.start()])
            start = gap.end()
    return [s for s in (*found, text[start:]) if s]


def says(sentence: str) -> dict[str, str]:
    """What one sentence of a dense caption asserts, by field (`noun` for a subject); nothing if it is no such one."""
    try:
        return _match(sentence)
    except Unparsable:
        return {}


def _sentences(text: str) -> list[str]:
    sentences = split_sentences(text)
    if not sentences:
        raise Unparsable("the caption is empty")
    if not sentences[-1].endswith("."):
        raise Unparsable(f"the caption breaks off in `{sentences[-1]}`")
    return sentences


def _check_count(said: str, found: int) -> None:
    if not found:
        raise Unparsable("the caption names no subject")
    if said not in COUNT_WORDS or COUNT_WORDS.index(said) != found:
        raise Unparsable(f"the caption speaks of {said} and names {found} subjects")


def _read_noun(noun: str, motion: str, sentence: str) -> Subject:
    words = noun.split(" ")
    size = words.pop(0) if words[0] in SIZES and len(words) > 1 else ""
    color = words.pop(0) if len(words) > 1 else ""
    if not all(words):
        raise Unparsable(f"no subject can be read from `{sentence}`")
    return Subject(shape=" ".join(words), color=color, size=size, motion="" if motion == _NO_MOTION else motion)


_TEMPLATES = tuple(
    re.compile(pattern).fullmatch
    for pattern in (
        r"(?P<count>[A-Z][a-z]+) subjects are visible\.",
        r"There are (?P<count>[a-z]+) subjects\.",
        rf"An? (?P<noun>{_VALUE}?) is (?P<motion>{_VALUE})\.",
        rf"There is {_NOUN}(?:, which is (?P<motion>{_VALUE}))?\.",
        rf"We see {_NOUN}(?: that is (?P<motion>{_VALUE}))?\.",
        rf"In view is {_NOUN}(?:, (?P<motion>{_VALUE}))?\.",
        rf"The first is (?P<relation>{_VALUE}) the second\.",
        rf"First it is (?P<events>{_VALUE}(?:, then it is {_VALUE})*)\.",
        rf"In order, the first subject is (?P<events>{_VALUE}(?:, then {_VALUE})*)\.",
        rf"The background is (?P<background>{_VALUE}) and the camera is (?P<camera>{_VALUE})\.",
        rf"The background is (?P<background>{_VALUE})\.",
        rf"Behind is (?P<background>{_VALUE})\.",
        rf"The scene has (?P<background>{_VALUE}) behind\.",
        rf"The camera is (?P<camera>{_VALUE})\.",
        rf"Meanwhile the camera is (?P<camera>{_VALUE})\.",
        rf"It is seen by a camera that is (?P<camera>{_VALUE})\.",
        rf"The light(?:ing)? is (?P<lighting>{_VALUE})\.",
        rf"The style is (?P<style>{_VALUE})\.",
        rf"In style it is (?P<style>{_VALUE})\.",
        rf'(?:The screen reads|On the screen stands) "(?P<on_screen_text>{_QUOTE})"\.',
    )
)


def _match(sentence: str) -> dict[str, str]:
    for template in _TEMPLATES:
        if found := template(sentence):
            said = {name: value for name, value in found.groupdict().items() if value is not None}
            return {name: v if name == "on_screen_text" else v.lower() for name, v in said.items()}
    raise Unparsable(f"`{sentence}` fits no sentence of the caption grammar")
