"""Captions as validated records, rendered to text late; and the pairs a captioner learns from."""

import dataclasses
import enum

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
    attempts: int = column("Tries it took.")
    made_by: str = column("Digest of code version, config and models.", default="")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CaptionScore:
    """How well CLIP finds a caption in its clip, sentence by sentence (CLIP reads 77 tokens at most)."""

    clip_id: str = column("The clip.")
    short_score: float | None = column("Cosine of the short caption and the clip.", range="[-1, 1]")
    dense_mean: float | None = column("Mean over the dense caption's sentences.", range="[-1, 1]")
    dense_min: float | None = column("Weakest sentence of the dense caption.", range="[-1, 1]")
    model: str = column("Digest of the CLIP weights.")
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
    fields: Fields = column("The truth the captions were rendered from.")
    source: str = column("`synthetic`, or where the pair comes from.")


CAPTIONS = Table("captions", Caption, ("clip_id",), doc="Short and dense captions with provenance.")
CAPTION_SCORES = Table("caption_scores", CaptionScore, ("clip_id",), doc="CLIP evidence for each caption.")
PAIRS = Table("pairs", Pair, ("pair_id",), partitioned=False, doc="(clip, captions) pairs the captioner learns from.")
