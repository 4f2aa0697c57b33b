"""Captions as validated records, rendered to text late; and the pairs a captioner learns from."""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from schemas.table import Table, column


class CaptionStatus(enum.StrEnum):
    """How captioning a clip ended; written in the same row as the text."""

    OK = "ok"
    TRUNCATED = "truncated"
    REPETITIVE = "repetitive"
    REFUSED = "refused"
    UNPARSABLE = "unparsable"
    LOW_CLIP = "low_clip"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One thing that is seen.  An empty text means: not said."""

    shape: str = column("What it is.", default="")
    color: str = column("Its colour.", default="")
    size: str = column("small or large.", default="")
    motion: str = column("What it does.", default="")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """A caption as a record."""

    subjects: list[Subject] = column("What is seen, the main subject first.")
    relation: str = column("How the first subject stands to the second (`left of`, `above`); empty if one.", default="")
    events: list[str] = column("What happens, in order; empty if only one thing does.")
    camera: str = column("Camera motion.", default="")
    background: str = column("The setting.", default="")
    lighting: str = column(
        "What the light is like (`soft evening light`), in the words of a general model.", default="", later=True
    )
    style: str = column("What it looks like as a picture (`hand drawn`).", default="", later=True)
    on_screen_text: str = column(
        "Text that is to be read on the screen, as it stands there.  It says nothing about what to do.",
        default="",
        later=True,
    )


def fields_of(said: Mapping[str, Any]) -> Fields:
    """A record from its plain form; what is not named is not said.

    Raises:
        TypeError, ValueError: If it is no such record.
    """
    known = {f.name for f in dataclasses.fields(Fields)}
    if unknown := sorted(set(said) - known):
        raise ValueError(f"unknown field `{unknown[0]}`; known: {', '.join(sorted(known))}")
    plain = {"subjects": [], "events": [], **{k: v for k, v in said.items() if v is not None}}
    return Fields(**{**plain, "subjects": [Subject(**s) for s in plain["subjects"]]})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One try at one text of a clip."""

    kind: str = column("short or dense.")
    number: int = column("1 for the first try at this text.", range="[1, inf)")
    change: str = column("What it changed against the try before, as `name=value`; empty for the first.")
    status: str = column("How its text was judged.")
    reason: str = column("Why the status is not ok.")
    finish_reason: str = column("stop, or length when the budget ran out; empty if there was no answer.")
    num_tokens: int = column("Tokens written.", unit="token")
    num_frames: int = column("Frames shown.", unit="frame")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A clip's captions and how they came to be."""

    clip_id: str = column("The clip.")
    short: str = column("One sentence on the main subject; empty unless status is ok.")
    dense: str = column("Everything that is seen, in sentences; empty unless status is ok.")
    fields: Fields | None = column("The dense caption, parsed; null if it does not parse.")
    status: str = column("ok, truncated, repetitive, refused, unparsable, low_clip or failed.")
    reason: str = column("Why the status is not ok.", default="")
    raw_short: str = column("What the model wrote for the short caption, as it came.")
    raw_dense: str = column("What the model wrote for the dense caption, as it came.")
    backend: str = column("Which backend wrote it.")
    model: str = column("Digest of the captioner's weights.")
    knows: str = column("What the model was trained on: `synthetic` or `general`.")
    prompt_version: str = column("Version of the prompt.")
    decoding: str = column("Decoding parameters, as JSON.")
    frame_indices: list[int] = column("Decoded-frame indices the model saw.")
    num_tokens: int = column("Tokens written for both captions.", unit="token")
    finish_reason: str = column("stop, or length when the budget ran out.")
    attempts: int = column("Tries it took: the most that one of the two texts took.")
    adapter: str = column("Digest of the adapter on top of the weights; empty for none.", default="")
    engine: str = column("What ran the model: library, version, device and number type.", default="")
    prompt_digest: str = column("Digest of the prompt version's texts.", default="")
    frame_spec: str = column("How frames were chosen and sized, as JSON.", default="")
    frame_times_s: list[float] = column("Times of those frames from the clip's start.", unit="s", default=())
    frame_digest: str = column("Digest of the frames and the crop that the model saw.", default="")
    tries: list[Try] = column("Every try at both texts, in order, with what it changed and how it ended.", default=())
    made_by: str = column("Digest of code version, config and models.", default="")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SentenceScore:
    """How well CLIP finds one sentence in a clip."""

    sentence: str = column("The sentence.")
    score: float = column("Its cosine with the clip.", range="[-1, 1]")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CaptionScore:
    """How well CLIP finds a caption in its clip, sentence by sentence (CLIP reads 77 tokens at most)."""

    clip_id: str = column("The clip.")
    short_score: float | None = column("Cosine of the short caption and the clip.", range="[-1, 1]")
    dense_mean: float | None = column("Mean over the dense caption's sentences.", range="[-1, 1]")
    dense_min: float | None = column("Weakest sentence of the dense caption.", range="[-1, 1]")
    sentences: list[SentenceScore] = column("Every sentence of the dense caption, in order.", default=())
    model: str = column("Digest of the CLIP weights.")
    made_by: str = column("Digest of code version, config and models.", default="")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CheckedClaim:
    """One thing that a caption says, and whether the clip bears it out."""

    field: str = column("color, shape, size, motion, event, relation, count, camera or background; or sentence.")
    place: int = column("Which subject or event, from 0.", range="[0, inf)")
    value: str = column("What is said.")
    sentence: int = column("Which sentence of the dense caption says it, from 0; -1 if it cannot be told.")
    verdict: str = column("supported, contradicted or unverifiable.")
    gap: float | None = column("How much likelier than the best alternative; null: not asked.", unit="nat")
    bound: float | None = column("Gap below which it is contradicted; null: its field cannot be verified.", unit="nat")
    rival: str = column("That alternative; empty if there is none.")
    fall: float | None = column(
        "What the caption loses on corruptions that would make it false; null: none would.", unit="nat"
    )
    verifier: str = column("Who says so: kind and digest of the weights; empty for nobody.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CheckedCaption:
    """A caption claim by claim, and the same without the claims that are contradicted."""

    clip_id: str = column("The clip.")
    short: str = column("The short caption without contradicted claims.")
    dense: str = column("The dense caption without contradicted claims; as it was if there are none.")
    fields: Fields | None = column("The same as a record; null for free prose.")
    claims: list[CheckedClaim] = column("All claims of the dense caption as it was written, in reading order.")
    supported: int = column("Claims that the clip bears out.")
    contradicted: int = column("Claims that were struck out.")
    unverifiable: int = column("Claims of which nothing can be said.")
    contradicted_share: float = column("Contradicted of all claims; 0 if there are none.", range="[0, 1]")
    worst_gap: float | None = column("The smallest gap less its bound; null if nothing was asked.", unit="nat")
    fall_reversed: float | None = column("What the caption loses on the clip played backwards.", unit="nat")
    fall_mirrored: float | None = column("What it loses on the mirrored clip.", unit="nat")
    fall_hue: float | None = column("What it loses on the clip in other colours.", unit="nat")
    fall_frozen: float | None = column("What it loses on one frame held.", unit="nat")
    fall_blanked: float | None = column("What it loses on the clip without its subjects.", unit="nat")
    reason: str = column("Why nothing was asked; empty if it was.")
    made_by: str = column("Digest of code version, config and models.", default="")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A (clip, captions) pair to learn from: a handful of frames with their truth."""

    pair_id: str = column("Name of the pair.")
    split: str = column("train or held_out.")
    frames: list[bytes] = column("JPEGs in time order, all of one size.", arrow=pa.list_(pa.binary()))
    times_s: list[float] = column("Their times from the clip's start.", unit="s")
    width: int = column("Width of each JPEG.", unit="pixel")
    height: int = column("Height of each JPEG.", unit="pixel")
    short: str = column("Short caption.")
    dense: str = column("Dense caption.")
    fields: Fields | None = column("What is true of the clip, as a record; null where only the texts are known.")
    source: str = column("`synthetic`, `labels`, `teacher:<backend>`, or `file:<name>`.")
    writer: str = column(
        "Who wrote the captions, as far as is known: a person, or a model with its digest.", default=""
    )
    clip_id: str = column("The clip of this root that is shown; empty for others.", default="")
    length_s: float | None = column(
        "Length of the clip; null: the last frame is held as long as the others.", unit="s", default=None
    )
    box: list[float] | None = column("left, top, right, bottom of the crop on the JPEGs; null: whole.", default=None)
    places: tuple[tuple[float, ...], ...] = column(
        "Of each subject x and y of its centre in every frame, one after the other, as shares of the picture's width "
        "and height; outside [0, 1] where out of sight.  Empty where nobody knows: then it is learned without.",
        default=(),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A row of a pair file that gave no pair, and why."""

    file: str = column("The file.")
    row: int = column("Its row, counted from 1 after the header.")
    column_name: str = column("The column at fault.")
    reason: str = column("What is wrong with it.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A row of a pair file, checked; frames of this root's clips are in it, those of other files are decoded later."""

    file: str = column("The file.")
    row: int = column("Its row, counted from 1 after the header.")
    video: str = column("The video file; empty for a clip of this root.", default="")
    clip_id: str = column("The clip of this root; empty for another file.", default="")
    start_s: float = column("Where the clip begins.", unit="s", default=0.0)
    end_s: float | None = column("Where it ends (exclusive); null: with the video.", unit="s", default=None)
    frames: list[bytes] = column("Proxies of a clip of this root.", arrow=pa.list_(pa.binary()), default=())
    times_s: list[float] = column("Their times from the clip's start.", unit="s", default=())
    width: int = column("Width of each JPEG.", unit="pixel", default=0)
    height: int = column("Height of each JPEG.", unit="pixel", default=0)
    box: list[float] | None = column("The clip's crop on them.", default=None)
    short: str = column("Short caption.", default="")
    dense: str = column("Dense caption.", default="")
    fields: Fields | None = column("As a record; null where it cannot be read.", default=None)
    split: str = column("train or held_out; empty for a clip that is still to be looked up.", default="")
    source: str = column("As in `pairs`.", default="")
    writer: str = column("As in `pairs`.", default="")
    column_name: str = column("The column at fault; empty if none is.", default="")
    reason: str = column("What is wrong with it.", default="")


CAPTIONS = Table("captions", Caption, ("clip_id",), doc="Short and dense captions with provenance.")
CAPTION_SCORES = Table("caption_scores", CaptionScore, ("clip_id",), doc="CLIP evidence for each caption.")
CAPTION_CLAIMS = Table(
    "caption_claims", CheckedCaption, ("clip_id",), doc="Captions claim by claim, and without what is contradicted."
)
SYNTHETIC_PAIRS = Table(
    "synthetic_pairs", Pair, ("pair_id",), partitioned=False, doc="Rendered (clip, captions) pairs with their truth."
)
PAIRS = Table("pairs", Pair, ("pair_id",), partitioned=False, doc="(clip, captions) pairs the captioner learns from.")
PAIRS_LEFT_OUT = Table(
    "pairs_left_out", LeftOut, ("file", "row"), partitioned=False, doc="Rows of pair files that gave no pair."
)
PAIR_LIST = Table("pair_list", Listed, ("file", "row"), partitioned=False, doc="A pair file, checked (under work/).")
