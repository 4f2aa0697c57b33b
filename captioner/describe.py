"""Turns clips into caption rows: frames to the backend, text to the parser, another try (`captioner.attempts`), and
a record of it all.

What fails in the end is a row with a status, a reason and the raw text, never a blank that passes for a caption.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from captioner.attempts import Attempt, attempts, text_of
from captioner.backends import load
from captioner.backends.base import LENGTH, Backend, Clip
from captioner.config import Captioning
from captioner.frames import FrameSpec, pixels
from captioner.memory import Fitting
from captioner.prompt import KINDS, prompt_digest
from schemas.captions import CAPTIONS, Caption, CaptionStatus
from schemas.ids import digest
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
    more_jpegs: tuple[bytes, ...] = ()
    """About twice the frames, for a retry; none where there are no others."""
    more_times_s: tuple[float, ...] = ()

    @property
    def seen(self) -> str:
        """Digest of what a model is shown: frames and crop."""
        return digest(self.box, self.frame_indices, list(self.jpegs))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What every row of a run says of how it came to be."""

    backend: str
    knows: str
    """synthetic, footage, general or nothing."""
    model: str = ""
    """Digest of the weights; filled in when the backend is loaded, as the next two."""
    adapter: str = ""
    engine: str = ""
    made_by: str


def row_of(job: Job, texts: dict[str, Attempt], origin: Origin, spec: FrameSpec, settings: Captioning) -> Caption:
    """Both captions of a clip as one row; if either fails, neither is shown."""
    bad = [(k, a.parsed) for k, a in texts.items() if a.failed]
    dense = texts["dense"]
    ways = {k: {**dataclasses.asdict(a.way.decoding), "num_frames": a.num_frames} for k, a in texts.items()}
    shown = {k: "" if bad else text_of(a, k) for k, a in texts.items()}
    return Caption(
        clip_id=job.clip_id,
        short=shown["short"],
        dense=shown["dense"],
        fields=None if bad else dense.parsed.fields,
        status=bad[0][1].status if bad else CaptionStatus.OK,
        reason="; ".join(f"{kind}: {_clean(parsed.reason)}" for kind, parsed in bad),
        raw_short=_clean(texts["short"].written.text),
        raw_dense=_clean(dense.written.text),
        decoding=json.dumps(ways, sort_keys=True),
        num_tokens=sum(a.written.num_tokens for a in texts.values()),
        finish_reason=LENGTH if any(a.written.finish_reason == LENGTH for a in texts.values()) else _finish(texts),
        attempts=max(len(a.tries) for a in texts.values()),
        tries=[dataclasses.replace(t, reason=_clean(t.reason)) for a in texts.values() for t in a.tries],
        **_provenance(job, origin, spec, settings),
    )


def _finish(texts: dict[str, Attempt]) -> str:
    return min((a.written.finish_reason for a in texts.values()), key=len)


def _clean(text: str) -> str:
    """Text that a table can hold: half a surrogate pair is no character."""
    return text.encode(errors="replace").decode()


def _provenance(job: Job | None, origin: Origin, spec: FrameSpec, settings: Captioning) -> dict[str, Any]:
    """What every row of a run says, failed or not."""
    return {
        "backend": origin.backend,
        "model": origin.model,
        "adapter": origin.adapter,
        "engine": origin.engine,
        "knows": origin.knows,
        "prompt_version": settings.prompt_version,
        "prompt_digest": prompt_digest(settings.prompt_version),
        "frame_spec": json.dumps(dataclasses.asdict(spec), sort_keys=True),
        "frame_indices": list(job.frame_indices) if job else [],
        "frame_times_s": list(job.times_s) if job else [],
        "frame_digest": job.seen if job else "",
        "made_by": origin.made_by,
    }


def failed_row(
    clip_id: str, reason: str, origin: Origin, spec: FrameSpec, settings: Captioning, job: Job | None = None
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
        decoding=json.dumps(dataclasses.asdict(settings.decoding), sort_keys=True),
        num_tokens=0,
        finish_reason="",
        attempts=0,
        **_provenance(job, origin, spec, settings),
    )


def describe(
    jobs: Sequence[Job], *, backend: Backend, spec: FrameSpec, origin: Origin, settings: Captioning
) -> dict[str, pa.Table]:
    """Caption clips of one shape; those whose frames do not decode become rows of status failed."""
    return {CAPTIONS.name: CAPTIONS.from_rows(captioned(jobs, backend, spec, origin, settings))}


def captioned(
    jobs: Sequence[Job], backend: Backend, spec: FrameSpec, origin: Origin, settings: Captioning
) -> list[Caption]:
    """The rows of `describe`."""
    origin = dataclasses.replace(origin, model=backend.model, adapter=backend.adapter, engine=backend.engine)
    rows: list[Caption] = []
    seen: list[tuple[Job, Clip, Clip | None]] = []
    for job in jobs:
        try:
            more = Clip(pixels(job.more_jpegs, spec, job.box), job.more_times_s) if job.more_jpegs else None
            seen.append((job, Clip(pixels(job.jpegs, spec, job.box), job.times_s), more))
        except ValueError as e:
            rows.append(failed_row(job.clip_id, str(e), origin, spec, settings, job))
    if seen:
        clips, more_frames = [clip for _, clip, _ in seen], [more for _, _, more in seen]
        by_kind = {kind: attempts(backend, clips, kind, settings, more_frames) for kind in KINDS}
        for i, (job, _, _) in enumerate(seen):
            rows.append(row_of(job, {kind: done[i] for kind, done in by_kind.items()}, origin, spec, settings))
    return rows


def load_describer(
    *, root: str, checkpoint: str, spec: FrameSpec, origin: Origin, settings: Captioning
) -> Callable[[Sequence[Job]], dict[str, pa.Table]]:
    """Load the backend, once per worker, and return the function that captions a chunk of clips."""
    backend = opened(root, checkpoint, settings)
    return functools.partial(describe, backend=backend, spec=spec, origin=origin, settings=settings)


def opened(root: str, checkpoint: str, settings: Captioning) -> Backend:
    """The backend, loaded, which is asked for no more clips at once than memory holds."""
    return Fitting(load(settings, Store(root).fetch(checkpoint) if checkpoint else ""))


def key_of(jobs: Sequence[Job]) -> Any:
    """A chunk by content, for naming its finished part."""
    return digest([(j.clip_id, j.seen, list(j.more_jpegs)) for j in jobs])


def settled(tables: Mapping[str, pa.Table]) -> bool:
    """Whether a chunk's rows may be kept for later runs: none failed for want of a server or of memory."""
    rows = tables[CAPTIONS.name]
    asked = pa.compute.and_(pa.compute.equal(rows["status"], CaptionStatus.FAILED.value), _was_asked(rows))
    return not pa.compute.any(asked).as_py()


def _was_asked(rows: pa.Table) -> Any:
    return pa.compute.greater(rows["attempts"], 0)
