"""Pairs to batches: frames decoded once, captions as ids, fields as classes, and draws that depend on the step alone.

A batch holds clips of one shape (no padding in space).  Which shape, which clips, which of the two captions and how the
colours are shaken is drawn from a counter-based generator keyed by (seed, step), so that a run that was
killed and resumed sees what an undisturbed one sees, with no generator state to save.  Memory: 55 kB a pair.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captioner.frames import FrameSpec, moments, pixels, span_of
from captioner.train.tokenizer import END_ID, KIND_ID, PAD_ID, encode
from captioner.train.unsaid import leave_out
from schemas.captions import Fields, Pair
from schemas.language import variant_of

SUBJECTS = 3
"""Subjects that are looked for; what is said of a fourth is the LM's alone."""
_FAMILY = {"ends": "motion"}  # what a subject does last is named as what it does first is


def named_fields(fields: Fields) -> dict[str, str]:
    """A record as named closed fields, `shape.0` being the main subject's; what is not said is empty.

    `ends.k` is what subject k does last: the last event of the main one, else its motion.  It is no claim of
    its own; it lets two events in order be learned from every clip instead of from the few that have them.
    """
    named = {"count": str(len(fields.subjects)), "relation": fields.relation}
    for place in range(SUBJECTS):
        for name in ("shape", "color", "size", "motion"):
            said = getattr(fields.subjects[place], name) if place < len(fields.subjects) else ""
            named[f"{name}.{place}"] = said
        named[f"ends.{place}"] = fields.events[-1] if fields.events and not place else named[f"motion.{place}"]
    for place in range(2):
        named[f"event.{place}"] = fields.events[place] if place < len(fields.events) else ""
    return {**named, "camera": fields.camera, "background": fields.background}


def family(name: str) -> str:
    """Fields of one family have the same values and share a head, whichever subject they are of."""
    field = name.partition(".")[0]
    return _FAMILY.get(field, field)


def subject_of(name: str) -> int | None:
    """Whose field it is: the main subject's (its events too), another one's, or the scene's (None)."""
    field, _, place = name.partition(".")
    if field == "event":
        return 0
    return int(place) if place else None


def slot_values(records: Sequence[Fields | None], most: int = 64) -> dict[str, list[str]]:
    """The values of each field in the training pairs, those of its family: what the heads tell apart.

    A field with one value needs no head; one with more than `most` is not closed and gets none.
    """
    seen: dict[str, set[str]] = {}
    for record in records:
        for name, value in named_fields(record).items() if record else ():
            seen.setdefault(name, set()).add(value)
    told_apart = {name: values for name, values in seen.items() if len(values) >= 2}
    families: dict[str, set[str]] = {}
    for name, values in told_apart.items():
        families.setdefault(family(name), set()).update(values)
    return {n: sorted(families[family(n)]) for n in told_apart if len(families[family(n)]) <= most}


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """A pair, ready to be batched."""

    frames: np.ndarray[Any, np.dtype[np.uint8]]
    text: Mapping[str, list[int]]
    """Ids by kind: kind token, caption, end token."""
    fields: list[int]
    """Value of each closed field, by number; -1 where it is not known."""
    places: np.ndarray[Any, np.dtype[np.float32]]
    """(x, y) of each subject in each frame as shares of the picture, (SUBJECTS, T, 2); -1 where unknown."""
    record: Fields | None
    wordings: Mapping[str, int | None]
    """Which wording of the record the caption of each kind is; None where it is freely written."""


def shown_moments(pair: Pair, spec: FrameSpec) -> list[int]:
    """Which of a pair's frames a model sees: the same as in captioning."""
    span = (0.0, pair.length_s) if pair.length_s else span_of(pair.times_s)
    return moments(pair.times_s, *span, spec.num_frames)


def shown_frames(pair: Pair, spec: FrameSpec) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], tuple[float, ...]]:
    """What a model sees of a pair's clip, and when: the same frames and pixels as in captioning.

    Raises:
        ValueError: If a frame does not decode.
    """
    shown = shown_moments(pair, spec)
    left, top, right, bottom = pair.box or (0.0, 0.0, 0.0, 0.0)
    box = (left, top, right, bottom) if pair.box else None
    return pixels([pair.frames[i] for i in shown], spec, box), tuple(pair.times_s[i] for i in shown)


def example(pair: Pair, spec: FrameSpec, tokenizer: Any, slots: Mapping[str, Sequence[str]]) -> Example:
    """Decode and encode one pair.

    Raises:
        ValueError: If a frame does not decode.
    """
    named = named_fields(pair.fields) if pair.fields else {}
    return Example(
        frames=shown_frames(pair, spec)[0],
        text={k: [KIND_ID[k], *encode(tokenizer, getattr(pair, k)), END_ID] for k in KIND_ID},
        fields=[list(v).index(named[n]) if named.get(n) in v else -1 for n, v in slots.items()],
        places=_places(pair, shown_moments(pair, spec)),
        record=pair.fields,
        wordings={
            k: variant_of(getattr(pair, k), pair.fields, short=k == "short") if pair.fields else None for k in KIND_ID
        },
    )


def _places(pair: Pair, shown: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Places of the subjects in the frames that are shown."""
    places = np.full((SUBJECTS, len(shown), 2), -1.0, np.float32)
    for subject, flat in enumerate(pair.places[:SUBJECTS]):
        places[subject] = np.asarray(flat, np.float32).reshape(-1, 2)[list(shown)]
    return places


def by_shape(examples: Sequence[Example]) -> list[list[int]]:
    """Positions of the examples of each frame shape, in a fixed order."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, e in enumerate(examples):
        groups.setdefault(e.frames.shape, []).append(i)
    return [groups[shape] for shape in sorted(groups)]


def draw(
    examples: Sequence[Example],
    groups: Sequence[Sequence[int]],
    *,
    seed: int,
    step: int,
    batch: int,
    short_share: float,
    spoken: int,
    looked_at: int,
    unsaid: "Unsaid | None" = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The batch of one step: frames (B, T, H, W, 3) uint8, text (M, L), fields (B, slots), places (B, K, t, 2), and
    which fields the LM is not told (M, slots).

    A shape is drawn as often as it has clips; within it clips are drawn without repeats.  The first `spoken` come with
    a caption; places are those of `looked_at` frames, evenly.
    """
    rng = np.random.Generator(np.random.Philox(key=[seed, step]))
    sizes = np.array([len(g) for g in groups], dtype=np.float64)
    group = groups[int(rng.choice(len(groups), p=sizes / sizes.sum()))]
    picked = [examples[group[i]] for i in rng.choice(len(group), size=min(batch, len(group)), replace=False)]
    kinds = np.where(rng.random(len(picked)) < short_share, "short", "dense")
    frames = shake(np.stack([e.frames for e in picked]), rng)
    texts = [e.text[str(k)] for e, k in zip(picked[:spoken], kinds)]
    withheld = torch.zeros(len(texts), len(picked[0].fields), dtype=torch.bool)
    if unsaid is not None:
        for i, kind in enumerate(kinds[: len(texts)]):
            if rng.random() < unsaid.share:
                texts[i], slots = unsaid.told_less(picked[i], str(kind), rng, texts[i])
                withheld[i, slots] = True
    places = np.stack([e.places[:, :: e.places.shape[1] // looked_at] for e in picked])
    fields = torch.tensor([e.fields for e in picked])
    return torch.from_numpy(frames), pad(texts), fields, torch.from_numpy(places), withheld


@dataclasses.dataclass(frozen=True, slots=True)
class Unsaid:
    """How captions are told with less (`unsaid.py`)."""

    share: float
    """Of the captions that render their record."""
    groups: Mapping[str, Sequence[int]]
    """Slots that are told or withheld together (`unsaid.groups_of`)."""
    tokenizer: Any
    longest: int
    """Tokens; a caption that would be longer stays as it is."""

    def told_less(
        self, one: Example, kind: str, rng: np.random.Generator, whole: list[int]
    ) -> tuple[list[int], list[int]]:
        """Ids of the caption with less in it, and the slots that are not told."""
        wording = one.wordings[kind]
        if one.record is None or wording is None:
            return whole, []
        text, slots = leave_out(one.record, kind, wording, self.groups, rng)
        ids = [KIND_ID[kind], *encode(self.tokenizer, text), END_ID]
        return (ids, slots) if len(ids) <= self.longest else (whole, [])


def shake(frames: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Small changes of gain and level per clip: an encoder's and a camera's, not the subject's colour."""
    gain = rng.uniform(0.92, 1.08, (len(frames), 1, 1, 1, 1)).astype(np.float32)
    level = rng.uniform(-8.0, 8.0, (len(frames), 1, 1, 1, 1)).astype(np.float32)
    return np.clip(frames * gain + level + 0.5, 0, 255).astype(np.uint8)


def pad(texts: Sequence[Sequence[int]]) -> Tensor:
    """Ids of different lengths as one tensor; padding is on the right, where a causal model never looks back at it."""
    length = max(len(t) for t in texts)
    return torch.tensor([[*t, *[PAD_ID] * (length - len(t))] for t in texts])


def census(pairs: Sequence[Pair]) -> Counter[str]:
    """Pairs by source: what a model trained on them can be said to know."""
    return Counter(p.source for p in pairs)
