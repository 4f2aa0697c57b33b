"""Tries at a caption, each of which changes something, because asking a greedy model the same again gets the same.

    what was wrong    first retry                 second                          third
    truncated         twice the budget            four times                      eight times
    repetitive        no run of four tokens twice the same, drawn with a seed     another seed, more frames
    refused           drawn with a seed           another seed, more frames       another seed
    unparsable        JSON held to a schema if    drawn with a seed               another seed, more frames; JSON if
                      the backend can, or beams                                   the backend can

More frames are shown only to backends that take any number.  A backend's own error (a server away, no memory) is not
asked about again here: the backend has tried already.  Every try is kept, for the row.
"""

import dataclasses
from collections.abc import Sequence

from captioner.backends.base import LENGTH, STOP, Backend, Clip, Decoding, Written
from captioner.config import Captioning
from captioner.parse import Parsed, read
from captioner.prompt import prompt
from schemas.captions import CaptionStatus, Try
from schemas.language import render_dense, render_short

_WARM = 0.7  # a temperature at which a model still means what it says; Cosmos retries at it (facts/captioner.md 1)
_BEAMS, _RUN = 4, 4
LONGEST_BUDGET = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """How one try is made."""

    decoding: Decoding
    more: bool = False
    """Twice the frames."""


@dataclasses.dataclass(frozen=True, slots=True)
class Attempt:
    """The last try at one text of one clip, and all that led to it."""

    written: Written
    parsed: Parsed
    way: Way
    num_frames: int
    tries: tuple[Try, ...]

    @property
    def failed(self) -> bool:
        return self.parsed.status is not CaptionStatus.OK


def again(way: Way, status: CaptionStatus, retry: int, *, constrains: bool) -> Way:
    """What the next try changes.

    Args:
        retry: 1 for the first one.
    """
    d = way.decoding
    drawn = dataclasses.replace(d, temperature=_WARM, seed=retry, num_beams=1)
    if status is CaptionStatus.TRUNCATED:
        short, dense = (min(LONGEST_BUDGET, 2 * n) for n in (d.short_tokens, d.dense_tokens))
        return Way(dataclasses.replace(d, short_tokens=short, dense_tokens=dense), way.more)
    if status is CaptionStatus.REPETITIVE:
        changed = dataclasses.replace(d if retry == 1 else drawn, no_repeat_ngram=_RUN)
        return Way(changed, way.more or retry > 2)
    if status is CaptionStatus.REFUSED:
        return Way(drawn, way.more or retry > 1)
    if retry == 1:
        held = dataclasses.replace(d, constrained=True)
        return Way(held if constrains else dataclasses.replace(d, num_beams=max(_BEAMS, d.num_beams)), way.more)
    return Way(dataclasses.replace(drawn, constrained=constrains and retry > 2), way.more or retry > 2)


def change(before: Way, after: Way) -> str:
    """What differs between two ways, as `name=value`."""
    named = [
        f"{f.name}={getattr(after.decoding, f.name)}"
        for f in dataclasses.fields(Decoding)
        if getattr(after.decoding, f.name) != getattr(before.decoding, f.name)
    ]
    return ", ".join([*named, *(["more frames"] if after.more and not before.more else [])])


def attempts(
    backend: Backend, clips: Sequence[Clip], kind: str, settings: Captioning, more: Sequence[Clip | None] = ()
) -> list[Attempt]:
    """Write one kind of caption for clips of one shape, retrying those that fail.

    Args:
        more: The same clips with more frames, where there are any.
    """
    first = Way(settings.decoding)
    done = _try(backend, clips, kind, settings, first, "", [()] * len(clips))
    for retry in range(1, settings.retries + 1):
        failed = [i for i, a in enumerate(done) if a.failed and not a.written.error]
        ways: dict[tuple[Way, str], list[int]] = {}
        for i in failed:
            way = again(done[i].way, done[i].parsed.status, retry, constrains=backend.constrains)
            if way.more and not (backend.sees_more and more and more[i] is not None):
                way = Way(way.decoding)
            if what := change(done[i].way, way):  # else it would get the same again
                ways.setdefault((way, what), []).append(i)
        for (way, what), places in ways.items():
            shown = [more[i] or clips[i] if way.more else clips[i] for i in places]
            before = [done[i].tries for i in places]
            for i, attempt in zip(places, _try(backend, shown, kind, settings, way, what, before)):
                done[i] = attempt
    return done


def _try(
    backend: Backend,
    clips: Sequence[Clip],
    kind: str,
    settings: Captioning,
    way: Way,
    what: str,
    before: Sequence[tuple[Try, ...]],
) -> list[Attempt]:
    """Ask once for each clip, and judge what comes."""
    asked = prompt(kind, settings.prompt_version, record=way.decoding.constrained)
    made = []
    for clip, tries, written in zip(clips, before, backend.write(clips, asked, way.decoding)):
        parsed = judge(written, settings)
        count = len(clip.frames)
        one = Try(
            kind=kind,
            number=len(tries) + 1,
            change=what,
            status=parsed.status,
            reason=parsed.reason,
            finish_reason=written.finish_reason,
            num_tokens=written.num_tokens,
            num_frames=count,
        )
        made.append(Attempt(written, parsed, way, count, (*tries, one)))
    return made


def judge(written: Written, settings: Captioning) -> Parsed:
    """What a backend's answer is worth."""
    if written.error:
        return Parsed(CaptionStatus.FAILED, written.error)
    finish = LENGTH if written.finish_reason == LENGTH else STOP
    return read(written.text, finish, require_fields=settings.require_fields, language=settings.language)


def text_of(attempt: Attempt, kind: str) -> str:
    """What the caption says: the text as it came, or the record rendered."""
    fields = attempt.parsed.fields
    if attempt.parsed.was_json and fields is not None:
        return render_short(fields) if kind == "short" else render_dense(fields)
    return attempt.written.text.strip()
