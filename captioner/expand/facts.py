"""What a prompt asks for, and whether a longer text keeps it.

A prompt is anybody's words, so it is read by a lexicon and not by a grammar: the values that the manifest's captions
use, by field, matched on word stems ("moves left" is `moving left`).  Adjectives go to the noun after them, a motion to
the subject before it, a number word makes several.  A text in the caption language is parsed exactly instead.  Words
that are neither known values nor function words are facts too: they must come again in the text.

A text keeps a prompt if it has just as many subjects, each with all that was said of it, the same relation, order of
events, setting and camera, and every other word.  Pure; cost: tens of microseconds.
"""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence

from schemas.captions import Fields, Subject
from schemas.language import UNCHECKED, Unparsable, parse

Lexicon = Mapping[str, Sequence[str]]
"""Field to the values it may have."""

_OF_A_SUBJECT = ("size", "color", "shape", "motion")
_NUMBERS = {w: n for n, w in enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine"), 1)}
_FUNCTION = frozenset(
    word
    for line in (
        "a across after also an and any are as at background be before behind being by camera can clip could",
        "during film finally first footage for from front give has have he her here him i in into is it its just",
        "let like make me meanwhile my next of on or order our over please scene second see seen she shot show",
        "showing shows some subject subjects that the their them then there these they thing things this those",
        "through to under us very video view visible want was we when where which while who with would you your",
    )
    for word in line.split()
)
"""Words that are no facts; a negation is one, and is kept as it was said."""


def stem(word: str) -> str:
    """A word without the endings of English verbs and plurals; the same for "moves", "moving" and "move"."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)]
            break
    word = word.removesuffix("e")
    return word[:-1] if len(word) > 2 and word[-1] == word[-2] else word


def words_of(text: str) -> list[str]:
    """The words of a text in lower case."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower())


def lexicon_of(records: Sequence[Fields]) -> dict[str, list[str]]:
    """The values that records use, by field."""
    seen: dict[str, set[str]] = {name: set() for name in (*_OF_A_SUBJECT, "relation", "camera", "background")}
    for record in records:
        for subject in record.subjects:
            for name in _OF_A_SUBJECT:
                seen[name].add(getattr(subject, name))
        seen["motion"].update(record.events)
        for name in ("relation", "camera", "background"):
            seen[name].add(getattr(record, name))
    return {name: sorted(values - {""}) for name, values in seen.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What a text says."""

    record: Fields
    """An empty text stands for: not said.  A subject may lack its shape."""
    words: tuple[str, ...] = ()
    """Content words that are no known value."""


def read_facts(text: str, lexicon: Lexicon) -> Facts:
    """What a text says, by the caption grammar if it fits, else by the lexicon."""
    try:
        return Facts(parse(text))
    except Unparsable:
        return _Reader(lexicon).read(words_of(text))


class _Reader:
    """Reads free words from left to right."""

    def __init__(self, lexicon: Lexicon) -> None:
        entries = [(tuple(map(stem, words_of(v))), field, v) for field, values in lexicon.items() for v in values]
        self._entries = sorted(entries, key=lambda e: -len(e[0]))

    def read(self, words: Sequence[str]) -> Facts:
        stems = [stem(w) for w in words]
        self.subjects: list[dict[str, str]] = []
        self.motions: dict[int, list[str]] = {}
        self.scene: dict[str, str] = {}
        self.pending: dict[str, str] = {}
        self.number, others, at = 1, [], 0
        while at < len(words):
            found = self._match(stems, at)
            if found is not None:
                length, field, value = found
                self._take(field, value)
                at += length
                continue
            if words[at] in _NUMBERS:
                self.number = _NUMBERS[words[at]]
            elif words[at] not in _FUNCTION:
                others.append(words[at])
            at += 1
        return self._facts(others)

    def _match(self, stems: Sequence[str], at: int) -> tuple[int, str, str] | None:
        for entry, field, value in self._entries:
            if entry and tuple(stems[at : at + len(entry)]) == entry:
                near_camera = "camera" in (*stems[max(0, at - 2) : at], *stems[at + len(entry) : at + len(entry) + 1])
                if field == "motion" and near_camera and value in ("still", "static"):
                    continue  # a still camera is said of the camera
                return len(entry), field, value
        return None

    def _take(self, field: str, value: str) -> None:
        if field in ("camera", "background", "relation"):
            self.scene.setdefault(field, value)
        elif field == "shape":
            for _ in range(self.number):
                self.subjects.append({**self.pending, "shape": value})
            self.pending, self.number = {}, 1
        elif field == "motion" and self.subjects and not self.pending:
            self.motions.setdefault(len(self.subjects) - 1, []).append(value)
        else:
            self.pending[field] = value

    def _facts(self, others: list[str]) -> Facts:
        if self.pending:  # "something red": a subject without a shape; or a size after the noun
            if self.subjects and not set(self.pending) & set(self.subjects[-1]):
                self.subjects[-1] |= self.pending
            else:
                self.subjects.append(dict(self.pending))
        for place, motions in self.motions.items():
            self.subjects[place].setdefault("motion", motions[0])
        main = self.motions.get(0, [])
        subjects = [Subject(**{"shape": "", **said}) for said in self.subjects]
        return Facts(Fields(subjects=subjects, events=main if len(main) > 1 else [], **self.scene), tuple(others))


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """How a text stands to a prompt."""

    lost: tuple[str, ...]
    """Facts of the prompt that the text does not keep, in words."""
    added: tuple[str, ...]
    """What the text says beyond the prompt, as `field: value`."""


def compare(asked: Facts, said: Facts, text: str) -> Verdict:
    """Which facts of a prompt a text keeps, and what it adds; subjects are paired so that most is kept."""
    options = [_against(asked, said, order, text) for order in _orders(asked.record, said.record)]
    return min(options, key=lambda v: (len(v.lost), len(v.added)))


def _orders(asked: Fields, said: Fields) -> list[tuple[int, ...]]:
    """Which subject of the text each of the prompt's may be."""
    wanted, there = len(asked.subjects), len(said.subjects)
    if asked.relation or wanted > 4 or there > 4 or wanted > there:
        return [tuple(range(wanted))]  # a relation is of the first to the second
    return list(itertools.permutations(range(there), wanted))


def _against(asked: Facts, said: Facts, order: Sequence[int], text: str) -> Verdict:
    one, two = asked.record, said.record
    lost, added = [], []
    if one.subjects and len(one.subjects) != len(two.subjects):
        lost.append(f"{len(one.subjects)} subject{'s' * (len(one.subjects) > 1)}, the text has {len(two.subjects)}")
    paired = dict(zip(order, one.subjects))
    for place, wanted in paired.items():
        there = two.subjects[place] if place < len(two.subjects) else Subject()
        for name in _OF_A_SUBJECT:
            value, found = getattr(wanted, name), getattr(there, name)
            if value and value != found:
                lost.append(f"{name}: {value}{f' (the text says {found})' if found else ''}")
    for place, there in enumerate(two.subjects):
        wanted = paired.get(place, Subject())
        added += [f"{n}: {getattr(there, n)}" for n in _OF_A_SUBJECT if getattr(there, n) and not getattr(wanted, n)]
    for name in ("relation", "background", "camera", *UNCHECKED):
        value, found = getattr(one, name), getattr(two, name)
        if value and value != found:
            lost.append(f"{name}: {value}{f' (the text says {found})' if found else ''}")
        elif found and not value:
            added.append(f"{name}: {found}")
    if one.events and one.events != two.events:
        lost.append(f"in order: {', then '.join(one.events)}")
    added += [f"event: {e}" for e in two.events if e not in one.events]
    stems = {stem(w) for w in words_of(text)}
    lost += [f"word: {w}" for w in asked.words if stem(w) not in stems]
    return Verdict(tuple(lost), tuple(added))
