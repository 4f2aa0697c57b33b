"""Turns clips into caption rows: frames to the backend, text to the parser, another try, and a record of it all.

A retry changes something, because asking a greedy model the same again gets the same: more budget for what was
cut short, no repeated runs of words for a loop, beams for what does not parse or was declined.  What
still fails is a row with a status, a reason and the raw text, never a blank that passes for a caption.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from captioner.backends import load
from captioner.backends.base import LENGTH, STOP, Backend, Clip, Decoding, Written
from captioner.config import Captioning
from captioner.frames import FrameSpec, pixels
from captioner.parse import Parsed, read
from captioner.prompt import KINDS, prompt
from schemas.captions import CAPTIONS, Caption, CaptionStatus
from schemas.store import Store


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One clip to caption: its chosen frames, still JPEGs."""

    clip_id: str
    jpegs: tuple[bytes, ...]
    frame_indices: tuple[int, ...]
    times_s: tuple[float, ...]
    """From the clip's start."""
    box: tuple[float, float, float, float] | None
    """Crop on the proxy: left, top, right, bottom."""
    size: tuple[int, int]
    """Height and width at which it is seen; clips of one size are captioned together."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What every row of a run says of how it came to be."""

    backend: str
    knows: str
    """synthetic, footage, general or nothing."""
    model: str = ""
    """Digest of the weights; filled in when the backend is loaded."""
    made_by: str


@dataclasses.dataclass(frozen=True, slots=True)
class Attempt:
    """The last try at one text of one clip."""

    written: Written
    parsed: Parsed
    decoding: Decoding
    tries: int


def again(decoding: Decoding, status: CaptionStatus) -> Decoding:
    """What the next try changes."""
    if status is CaptionStatus.TRUNCATED:
        return dataclasses.replace(
            decoding, short_tokens=2 * decoding.short_tokens, dense_tokens=2 * decoding.dense_tokens
        )
    if status is CaptionStatus.REPETITIVE:
        return dataclasses.replace(decoding, no_repeat_ngram=4)
    return dataclasses.replace(decoding, num_beams=max(4, decoding.num_beams))


def attempts(backend: Backend, clips: Sequence[Clip], kind: str, settings: Captioning) -> list[Attempt]:
    """Write one kind of caption for clips of one shape, retrying those that fail."""
    asked = prompt(kind, settings.prompt_version)
    done: list[Attempt] = []
    for written in backend.write(clips, asked, settings.decoding):
        judged = read(written.text, written.finish_reason, require_fields=settings.require_fields)
        done.append(Attempt(written, judged, settings.decoding, 1))
    for _ in range(settings.retries):
        failed = [i for i, a in enumerate(done) if a.parsed.status is not CaptionStatus.OK]
        changes: dict[Decoding, list[int]] = {}
        for i in failed:
            changes.setdefault(again(done[i].decoding, done[i].parsed.status), []).append(i)
        for decoding, places in changes.items():
            for i, written in zip(places, backend.write([clips[i] for i in places], asked, decoding)):
                judged = read(written.text, written.finish_reason, require_fields=settings.require_fields)
                done[i] = Attempt(written, judged, decoding, done[i].tries + 1)
    return done


def row_of(job: Job, texts: dict[str, Attempt], origin: Origin, settings: Captioning) -> Caption:
    """Both captions of a clip as one row; if either fails, neither is shown."""
    bad = [(k, a.parsed) for k, a in texts.items() if a.parsed.status is not CaptionStatus.OK]
    short, dense = texts["short"], texts["dense"]
    return Caption(
        clip_id=job.clip_id,
        short="" if bad else short.written.text.strip(),
        dense="" if bad else dense.written.text.strip(),
        fields=None if bad else dense.parsed.fields,
        status=bad[0][1].status if bad else CaptionStatus.OK,
        reason="; ".join(f"{kind}: {parsed.reason}" for kind, parsed in bad),
        raw_short=short.written.text,
        raw_dense=dense.written.text,
        backend=origin.backend,
        model=origin.model,
        knows=origin.knows,
        prompt_version=settings.prompt_version,
        decoding=json.dumps({k: dataclasses.asdict(a.decoding) for k, a in texts.items()}, sort_keys=True),
        frame_indices=list(job.frame_indices),
        num_tokens=sum(a.written.num_tokens for a in texts.values()),
        finish_reason=LENGTH if any(a.written.finish_reason == LENGTH for a in texts.values()) else STOP,
        attempts=max(a.tries for a in texts.values()),
        made_by=origin.made_by,
    )


def failed_row(
    clip_id: str, reason: str, origin: Origin, settings: Captioning, frame_indices: Sequence[int] = ()
) -> Caption:
    """A clip that could not be shown to the model."""
    return Caption(
        clip_id=clip_id,
        short="",
        dense="",
        fields=None,
        status=CaptionStatus.FAILED,
        reason=reason,
        raw_short="",
        raw_dense="",
        backend=origin.backend,
        model=origin.model,
        knows=origin.knows,
        prompt_version=settings.prompt_version,
        decoding=json.dumps(dataclasses.asdict(settings.decoding), sort_keys=True),
        frame_indices=list(frame_indices),
        num_tokens=0,
        finish_reason="",
        attempts=0,
        made_by=origin.made_by,
    )


def describe(
    jobs: Sequence[Job], *, backend: Backend, spec: FrameSpec, origin: Origin, settings: Captioning
) -> dict[str, pa.Table]:
    """Caption clips of one shape; those whose frames do not decode become rows of status failed."""
    origin = dataclasses.replace(origin, model=backend.model)
    rows: list[Caption] = []
    seen: list[tuple[Job, Clip]] = []
    for job in jobs:
        try:
            seen.append((job, Clip(pixels(job.jpegs, spec, job.box), job.times_s)))
        except ValueError as e:
            rows.append(failed_row(job.clip_id, str(e), origin, settings, job.frame_indices))
    if seen:
        clips = [clip for _, clip in seen]
        by_kind = {kind: attempts(backend, clips, kind, settings) for kind in KINDS}
        for i, (job, _) in enumerate(seen):
            rows.append(row_of(job, {kind: done[i] for kind, done in by_kind.items()}, origin, settings))
    return {CAPTIONS.name: CAPTIONS.from_rows(rows)}


def load_describer(
    *, root: str, checkpoint: str, spec: FrameSpec, origin: Origin, settings: Captioning
) -> Callable[[Sequence[Job]], dict[str, pa.Table]]:
    """Load the backend, once per worker, and return the function that captions a chunk of clips."""
    folder = Store(root).fetch(checkpoint) if checkpoint else ""
    backend = load(settings, folder)
    return functools.partial(describe, backend=backend, spec=spec, origin=origin, settings=settings)


def key_of(jobs: Sequence[Job]) -> Any:
    """A chunk by content, for naming its finished part."""
    from schemas.ids import digest

    return digest([(j.clip_id, j.box, j.frame_indices, list(j.jpegs)) for j in jobs])
