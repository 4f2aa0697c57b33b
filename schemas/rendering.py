"""A caption record becomes the text that a visit of training reads: which text, in which words, how much of it.

Captions are kept as records and as texts; what a model reads is drawn anew each time it sees a clip, so that one run of
the captioner serves many experiments (DALL-E 3 blends at sampling time; Cosmos drops fields at 5 to 10 %).  Every
draw comes from a generator of its own purpose, given by the caller, so that it depends on the seed, the clip and
the visit alone, and a share that is 0 draws nothing: the default policy reads texts as they were written.

A *budget* leaves out whole claims, the least important first, until the text fits: what a text encoder would cut off
in the middle of a word is chosen here instead.  Importance: the main subject's shape, colour and motion; events;
the count and the other subjects; relation; camera; background; sizes; lighting, style and text on the screen.  The
main subject's shape always stays.
Cost: 20 us a text, 0.3 ms where a budget bites.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from schemas.captions import Fields
from schemas.claims import COUNT, EVENT, RELATION, struck
from schemas.language import (
    NUM_VARIANTS,
    OF_SUBJECT,
    UNCHECKED,
    Claim,
    claims_of,
    render_dense,
    render_short,
    split_sentences,
)

Generator = Callable[[str], np.random.Generator]
"""From a purpose to its generator."""
SHORT, DENSE, JSON, HUMAN = "short", "dense", "json", "human"
_SCENE = {EVENT: 1, RELATION: 5, "camera": 6, "background": 7, "lighting": 9, "style": 10, "on_screen_text": 11}
_MAIN = {"shape": 0, "color": 0, "motion": 0, "size": 8}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RenderPolicy:
    """How a caption is told; shares are of the visits that read any caption."""

    short: float = 0.2
    """Share that reads the short caption."""
    json: float = 0.0
    """Share that reads the record as JSON."""
    human: float = 0.0
    """Share that reads the text that came with the source, where there is one."""
    reworded: float = 0.0
    """Share of dense and short captions that are told in other words."""
    shuffled: float = 0.0
    """Share of dense captions whose sentences about the scene change their order, and JSON whose fields do."""
    field_dropout: float = 0.0
    """Chance of each claim to be left unsaid, the main subject's shape apart."""
    max_words: int = 0
    """Longest text, words; claims are left out until it fits.  0: no bound."""

    def __post_init__(self) -> None:
        shares = (self.short, self.json, self.human, self.reworded, self.shuffled, self.field_dropout)
        if min(shares) < 0 or max(shares) > 1 or self.short + self.json + self.human > 1:
            raise ValueError("shares lie in [0, 1], and those of short, json and human add up to at most 1")
        if self.max_words < 0:
            raise ValueError(f"max_words is at least 0, got {self.max_words}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What is known of a clip in words."""

    short: str
    dense: str
    fields: Fields | None = None
    human: str = ""


def render(texts: Texts, policy: RenderPolicy, generator: Generator) -> tuple[str, str]:
    """(kind, text) of one visit; kinds that a clip does not have become dense."""
    kind = _kind(texts, policy, generator)
    if kind == HUMAN:
        return kind, _first_words(texts.human, policy.max_words)
    fields = texts.fields
    if fields is None:
        written = texts.short if kind == SHORT else texts.dense
        return kind, _whole_sentences(written, policy.max_words)
    changed = fields
    if policy.field_dropout:
        changed = dropped(fields, policy.field_dropout, generator("field dropout"))
    reworded = bool(policy.reworded) and generator("reworded").random() < policy.reworded
    if kind != JSON and changed == fields and not reworded:
        text = texts.short if kind == SHORT else texts.dense
        if policy.max_words and len(text.split()) > policy.max_words:
            text = _within(changed, kind, 0, policy.max_words)
        return kind, _shuffled(text, policy, generator) if kind == DENSE else text
    wording = int(generator("wording").integers(NUM_VARIANTS)) if reworded else 0
    if kind == JSON:
        return kind, as_json(_record_within(changed, policy.max_words), _order(changed, policy, generator))
    text = _within(changed, kind, wording, policy.max_words)
    return kind, _shuffled(text, policy, generator) if kind == DENSE else text


def _kind(texts: Texts, policy: RenderPolicy, generator: Generator) -> str:
    """One draw decides; its purpose and order are those of the trainer before there was a policy."""
    share = generator("short caption").random()
    if texts.short and share < policy.short:
        return SHORT
    if texts.fields is not None and policy.short <= share < policy.short + policy.json:
        return JSON
    if texts.human and policy.short + policy.json <= share < policy.short + policy.json + policy.human:
        return HUMAN
    return DENSE


def dropped(fields: Fields, chance: float, rng: np.random.Generator) -> Fields:
    """The record with some claims left unsaid; never the main subject's shape, nor a count, which follows."""
    some = [c for c in claims_of(fields) if c.field != COUNT and not (c.field == "shape" and c.place == 0)]
    gone = [c for c, draw in zip(some, rng.random(len(some))) if draw < chance]
    return struck(fields, [c for c in gone if c.field != "shape"])


def importance(claim: Claim) -> tuple[int, int]:
    """Smaller is more important."""
    if claim.field in OF_SUBJECT:
        if claim.place == 0:
            return _MAIN[claim.field], 0
        return (8 if claim.field == "size" else 3), claim.place
    if claim.field == COUNT:
        return 2, 0
    return _SCENE[claim.field], claim.place


def fitted(fields: Fields, fits: Callable[[Fields], bool]) -> Fields:
    """The record with as few claims left out as it takes, least important first; whole subjects go with their count."""
    while not fits(fields):
        some = sorted(claims_of(fields), key=importance, reverse=True)
        some = [c for c in some if not (c.field == "shape" and c.place == 0) and c.field != COUNT]
        if not some:
            break
        worst = some[0]
        if worst.field == "shape":  # of another subject, of which nothing else is left to leave out
            subjects = fields.subjects[:-1]
            relation = fields.relation if len(subjects) > 1 else ""
            fields = dataclasses.replace(fields, subjects=subjects, relation=relation)
        else:
            fields = struck(fields, [worst])
    return fields


def _within(fields: Fields, kind: str, wording: int, most: int) -> str:
    """The text, of at most so many words if that can be."""

    def told(record: Fields) -> str:
        return render_short(record, wording) if kind == SHORT else render_dense(record, wording)

    if not most:
        return told(fields)
    return told(fitted(fields, lambda record: len(told(record).split()) <= most))


def _record_within(fields: Fields, most: int) -> Fields:
    return fitted(fields, lambda record: len(as_json(record).split()) <= most) if most else fields


def as_json(fields: Fields, order: Sequence[str] = ()) -> str:
    """The record as JSON without what is not said; keys in the given order, others after."""

    def said(value: Any) -> Any:
        return {k: v for k, v in value.items() if v}

    plain = dataclasses.asdict(fields)
    whole = said({**plain, "subjects": [said(s) for s in plain["subjects"]]})
    keys = [*(k for k in order if k in whole), *(k for k in whole if k not in order)]
    return json.dumps({k: whole[k] for k in keys})


def _order(fields: Fields, policy: RenderPolicy, generator: Generator) -> list[str]:
    names = [f.name for f in dataclasses.fields(Fields) if f.name not in UNCHECKED or getattr(fields, f.name)]
    rng = generator("field order") if policy.shuffled else None
    return names if rng is None or rng.random() >= policy.shuffled else [names[i] for i in rng.permutation(len(names))]


def _shuffled(text: str, policy: RenderPolicy, generator: Generator) -> str:
    """Sentences about the scene in another order; those about subjects, whose order is their number, stay together."""
    if not policy.shuffled:
        return text
    rng = generator("sentence order")
    if rng.random() >= policy.shuffled:
        return text
    sentences = split_sentences(text)
    scene = [s for s in sentences if "camera" in s or s.startswith(("The background", "Behind", "The scene"))]
    rest = [s for s in sentences if s not in scene]
    scene = [scene[i] for i in rng.permutation(len(scene))]
    parts = [*scene[:1], *rest, *scene[1:]] if rng.random() < 0.5 else [*rest, *scene]
    return " ".join(parts)


def _whole_sentences(text: str, most: int) -> str:
    """As many whole sentences as fit; the first one anyway."""
    if not most:
        return text
    kept: list[str] = []
    for sentence in split_sentences(text):
        if kept and len(" ".join([*kept, sentence]).split()) > most:
            break
        kept.append(sentence)
    return " ".join(kept)


def _first_words(text: str, most: int) -> str:
    return " ".join(text.split()[:most]) if most else text
