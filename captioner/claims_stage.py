"""Stage `caption_claims`: every caption claim by claim, and the caption without what its clip contradicts.

The captions themselves stay as they were written, in `captions`.  The verifier is our own captioner; where there is
none, where it knows the rendered world and the footage is not of it, or where a caption is free prose, claims are
unverifiable and the row says why.  Thresholds come from the held-out pairs once per captioner (kept under `work/`).
Cost: 0.1 CPU s a clip, and 20 CPU s for the thresholds.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from captioner.describe import Job
from captioner.frames import FrameSpec, pixels
from captioner.jobs import chunked, look
from captioner.verify import CONTRADICTED, SUPPORTED, UNVERIFIABLE, Evidence, Thresholds, VerifyConfig, verdict
from pipelines.execute import Context, Failure, Output, Stage, Tables
from schemas import batches
from schemas.captions import (
    CAPTION_CLAIMS,
    CAPTIONS,
    PAIRS,
    CaptionStatus,
    CheckedCaption,
    CheckedClaim,
    Fields,
    fields_of,
)
from schemas.checkpoints import CAPTIONER_CHECKPOINT, Checkpoint
from schemas.claims import COUNT, EVENT, struck
from schemas.clips import CLIPS
from schemas.ids import digest
from schemas.language import OF_SUBJECT, Claim, render_dense, render_short, says, split_sentences
from schemas.store import Store, content_digest
from schemas.table import to_rows
from schemas.verdicts import SELECTIONS
from schemas.videos import FRAMES, VIDEOS

NO_CAPTIONER = "no captioner of our own was trained"
FOREIGN = "the captioner knows the rendered world alone"
PROSE = "free prose has no fields to ask about"
_CHUNK = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """A caption to check."""

    job: Job
    short: str
    dense: str
    fields: Fields


def check_claims(context: Context) -> Output:
    """Check every caption that is ok."""
    rows = [r for r in context.read(CAPTIONS).to_pylist() if r["status"] == CaptionStatus.OK]
    checkpoint = _own_checkpoint(context)
    why = ""
    if checkpoint is None:
        why = NO_CAPTIONER
    elif batches.beyond(checkpoint.knows, context.batch):
        why = FOREIGN
    unasked = [r for r in rows if why or r["fields"] is None]
    made: list[Any] = [unchecked(r, why or PROSE, context.made_by) for r in unasked]
    if checkpoint is not None and not why:
        made += _checked(context, checkpoint, [r for r in rows if r["fields"] is not None])
    return Output({CAPTION_CLAIMS.name: CAPTION_CLAIMS.from_rows(made)}, metrics=_metrics(made))


def _own_checkpoint(context: Context) -> Checkpoint | None:
    table = context.read_optional(CAPTIONER_CHECKPOINT)
    found = to_rows(table, Checkpoint) if table is not None else []
    return found[0] if found and found[0].kind == "captioner" else None


def _checked(context: Context, checkpoint: Checkpoint, rows: Sequence[dict[str, Any]]) -> list[Any]:
    from captioner.train.checkpoint import load_checkpoint

    spec = load_checkpoint(context.store.fetch(checkpoint.path)).frames
    jobs = {j.clip_id: j for j in look(context, spec)[0]}
    by_id = {r["clip_id"]: r for r in rows}
    chunks = chunked([j for name, j in jobs.items() if name in by_id], _CHUNK)
    items = [tuple(_written(j, by_id[j.clip_id]) for j in chunk) for chunk in chunks]
    lost = [unchecked(r, "its frames are gone", context.made_by) for name, r in by_id.items() if name not in jobs]
    if not items:
        return lost
    bounds = _bounds(context, checkpoint)
    tables = context.each(
        functools.partial(_load, context.store.root, checkpoint.path, spec, bounds, context.made_by),
        items,
        key=lambda item: digest([(w.job.seen, w.short, w.dense) for w in item], sorted(bounds.items())),
        outputs=(CAPTION_CLAIMS,),
        on_error=lambda item, failure: _failed(item, failure, by_id, context.made_by),
        unit="chunk",
        loaded=True,
    )
    return [*lost, *tables[CAPTION_CLAIMS.name].to_pylist()]


def _written(job: Job, row: Mapping[str, Any]) -> Written:
    return Written(job, row["short"], row["dense"], fields_of(row["fields"]))


def _bounds(context: Context, checkpoint: Checkpoint) -> dict[tuple[str, bool], float]:
    """Thresholds for this captioner, from its held-out pairs; computed once and kept."""
    config: VerifyConfig = context.settings
    pairs = context.read_optional(PAIRS)
    if pairs is None:
        return {}
    held = pairs.filter(np.array(pairs["split"]) == "held_out")
    name = digest("bounds", checkpoint.digest, content_digest(held), config, CLAIMS_STAGE.version)
    at = ("work", CLAIMS_STAGE.name, f"bounds-{name}.json")
    if not context.store.exists(*at):
        from captioner.stages import pair_of
        from captioner.train.checkpoint import load_checkpoint
        from captioner.train.planted import evidence
        from captioner.train.verifier import Verifier
        from captioner.verify import thresholds

        verifier = Verifier(load_checkpoint(context.store.fetch(checkpoint.path)))
        true = evidence([pair_of(r) for r in held.to_pylist()[: config.pairs]], verifier)
        found = [[field, several, bound] for (field, several), bound in thresholds(true, config).items()]
        context.store.write_json(found, *at)
    return {(field, several): bound for field, several, bound in context.store.read_json(*at)}


def _load(
    root: str, checkpoint: str, spec: FrameSpec, bounds: Thresholds, made_by: str
) -> Callable[[Sequence[Written]], Tables]:
    """Load the captioner, once per worker."""
    import torch

    from captioner.train.checkpoint import load_checkpoint
    from captioner.train.verifier import Verifier

    torch.set_num_threads(1)
    verifier = Verifier(load_checkpoint(Store(root).fetch(checkpoint)))

    def check(item: Sequence[Written]) -> Tables:
        rows = []
        for written in item:
            try:
                frames = pixels(written.job.jpegs, spec, written.job.box)
                found = verifier.examine(frames, written.fields)
                falls = verifier.falls(frames, written.fields)
            except ValueError as e:  # a frame, or a record that another version wrote: its own trouble alone
                said = {"clip_id": written.job.clip_id, "short": written.short, "dense": written.dense, "fields": None}
                rows.append(unchecked(said, str(e), made_by))
                continue
            rows.append(checked(written, found, falls, bounds, verifier.name, made_by))
        return {CAPTION_CLAIMS.name: CAPTION_CLAIMS.from_rows(rows)}

    return check


def checked(
    written: Written,
    found: Sequence[Evidence],
    falls: Mapping[str, float],
    bounds: Thresholds,
    verifier: str,
    made_by: str,
) -> CheckedCaption:
    """The row of a caption whose claims were asked about."""
    words = [verdict(e, bounds) for e in found]
    wrong = [e.claim for e, word in zip(found, words) if word == CONTRADICTED]
    fields = struck(written.fields, wrong) if wrong else written.fields
    margins = [e.gap - bounds[e.group] for e in found if e.gap is not None and e.group in bounds]
    return CheckedCaption(
        clip_id=written.job.clip_id,
        short=render_short(fields) if wrong else written.short,
        dense=render_dense(fields) if wrong else written.dense,
        fields=fields,
        claims=[
            CheckedClaim(
                field=e.claim.field,
                place=e.claim.place,
                value=e.claim.value,
                sentence=sentence_of(written.dense, e.claim),
                verdict=word,
                gap=e.gap,
                bound=bounds.get(e.group),
                rival=e.rival,
                fall=e.fall,
                verifier=verifier,
            )
            for e, word in zip(found, words)
        ],
        supported=words.count(SUPPORTED),
        contradicted=words.count(CONTRADICTED),
        unverifiable=words.count(UNVERIFIABLE),
        contradicted_share=words.count(CONTRADICTED) / len(words) if words else 0.0,
        worst_gap=min(margins, default=None),
        **{f"fall_{name}": value for name, value in falls.items()},
        reason="",
        made_by=made_by,
    )


def unchecked(row: Mapping[str, Any], why: str, made_by: str) -> CheckedCaption:
    """A caption of which nothing was asked: its sentences are its claims."""
    sentences = split_sentences(row["dense"])
    claims = [
        CheckedClaim(
            field="sentence", place=n, value=text, sentence=n, verdict=UNVERIFIABLE, gap=None, bound=None, rival="",
            fall=None, verifier="",
        )
        for n, text in enumerate(sentences)
    ]  # fmt: skip
    return CheckedCaption(
        clip_id=row["clip_id"],
        short=row["short"],
        dense=row["dense"],
        fields=None if row["fields"] is None else fields_of(row["fields"]),
        claims=claims,
        supported=0,
        contradicted=0,
        unverifiable=len(claims),
        contradicted_share=0.0,
        worst_gap=None,
        fall_reversed=None,
        fall_mirrored=None,
        fall_hue=None,
        fall_frozen=None,
        fall_blanked=None,
        reason=why,
        made_by=made_by,
    )


def sentence_of(dense: str, claim: Claim) -> int:
    """Which sentence says it; -1 if none does word by word."""
    subject = -1
    for number, sentence in enumerate(split_sentences(dense)):
        said = says(sentence)
        subject += "noun" in said
        if claim.field in OF_SUBJECT:
            if "noun" in said and subject == claim.place:
                return number
        elif {COUNT: "count", EVENT: "events"}.get(claim.field, claim.field) in said:
            return number
    return -1


def _failed(item: Sequence[Written], failure: Failure, rows: Mapping[str, Any], made_by: str) -> Tables:
    made = [unchecked(rows[w.job.clip_id], f"the verifier failed: {failure}", made_by) for w in item]
    return {CAPTION_CLAIMS.name: CAPTION_CLAIMS.from_rows(made)}


def _metrics(rows: Sequence[Any]) -> dict[str, Any]:
    plain = [r if isinstance(r, dict) else dataclasses.asdict(r) for r in rows]
    counts = {name: sum(r[name] for r in plain) for name in (SUPPORTED, CONTRADICTED, UNVERIFIABLE)}
    reasons = sorted({r["reason"] for r in plain if r["reason"]})
    return {
        "captions": len(plain),
        **{f"claims_{name}": count for name, count in counts.items()},
        "captions_with_a_contradicted_claim": sum(r[CONTRADICTED] > 0 for r in plain),
        **({"note": "; ".join(reasons)} if reasons else {}),
    }


CLAIMS_STAGE = Stage(
    name="caption_claims",
    version=2,  # thresholds by what wrong claims look like
    reads=(CAPTIONS, SELECTIONS, CLIPS, FRAMES, VIDEOS),
    writes=(CAPTION_CLAIMS,),
    run=check_claims,
    settings=lambda config: config.verify,
    optional=(CAPTIONER_CHECKPOINT, PAIRS),
    doc="Checks every claim of a caption against its clip and strikes out what is contradicted.",
)
