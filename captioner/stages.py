"""The captioner's stages: `captioner_model` trains on pairs, `captions` writes for every clip that was kept.

Clips are captioned in chunks of one frame shape, cut from the sorted clip ids, so that the rows do not depend
on how many workers there are.  Cost of `captions` with our own model: about 10 ms a clip on one core.
"""

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from captioner.backends import SEE_MORE
from captioner.backends.base import TRAINED
from captioner.claims_stage import CLAIMS_STAGE
from captioner.config import Captioning, Tuning
from captioner.describe import Job, Origin, failed_row, key_of, load_describer, settled
from captioner.expand.stage import EXPANDER
from captioner.frames import FrameSpec
from captioner.jobs import chunked, look
from captioner.pairs.stage import PAIRS_STAGE
from captioner.sheet import contact_sheet
from pipelines.execute import Context, Failure, Output, Progress, RunLog, Stage, Tables, halved
from schemas import batches
from schemas.captions import CAPTIONS, PAIRS, Caption, CaptionStatus, Pair, fields_of
from schemas.checkpoints import CAPTIONER_CHECKPOINT, Checkpoint
from schemas.clips import CLIPS
from schemas.errors import ConfigError, MissingTable
from schemas.ids import digest
from schemas.store import Store, content_digest
from schemas.table import to_rows
from schemas.verdicts import SELECTIONS
from schemas.videos import FRAMES, VIDEOS

_SHEET_CELLS = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """The snapshot of one training run, under the root's `work/`."""

    store: Store
    name: str

    def load(self) -> bytes | None:
        at = ("work", "captioner_model", self.name)
        return self.store.read_bytes(*at) if self.store.exists(*at) else None

    def save(self, data: bytes) -> None:
        self.store.write_bytes(data, "work", "captioner_model", self.name)


def train_captioner(context: Context) -> Output:
    """Train on all pairs and publish the checkpoint."""
    return _train_adapter(context) if isinstance(context.settings, Tuning) else _train_own(context)


def _train_adapter(context: Context) -> Output:
    from captioner.train.lora import KIND, save_adapter, tune

    table = context.read(PAIRS)
    trained_on = content_digest(table)
    settings: Tuning = context.settings
    run = digest(context.made_by, trained_on)
    progress = Progress("captioner_model", settings.lora.steps, "step")
    tuned = tune(
        [pair_of(row) for row in table.to_pylist()],
        settings.vlm,
        settings.frames,
        settings.lora,
        Kept(context.store, f"{run}.pt"),
        settings.prompt_version,
        on_step=lambda done, note: progress.advance(done - progress.done, note),
        curve=functools.partial(RunLog, context.store, "captioner_model", run),
    )
    progress.close()
    last = tuned.losses[-20:]
    measured = {
        "loss_first": round(tuned.losses[0], 4),
        "loss_last": round(sum(last) / len(last), 4),
        "held_out_loss_first": round(tuned.held_out_first, 4),
        "held_out_loss_last": round(tuned.held_out_last, 4),
        "pairs_left_out": tuned.left_out,
        **({"best_step": tuned.best_step} if tuned.best_step else {}),
    }
    sources = dict(Counter(table["source"].to_pylist()))
    card = {"base": tuned.base, "pairs": table.num_rows, "sources": sources, "trained on pairs": trained_on}
    card |= {"trained parameters": tuned.trained_parameters}
    card |= {"steps": len(tuned.losses), "rank": settings.lora.rank, "seed": settings.lora.seed, **measured}
    card |= {"prompt": settings.prompt_version, "frames": dataclasses.asdict(settings.frames)}
    card |= {"curve": f"logs/captioner_model/{run}", "made by": context.made_by}
    name, path = save_adapter(context.store, tuned, card)
    row = Checkpoint(
        digest=name,
        kind=KIND,
        path=path,
        knows="general",
        trained_on=trained_on,
        steps=len(tuned.losses),
        metrics=json.dumps({**measured, "base": tuned.base}, sort_keys=True),
        made_by=context.made_by,
    )
    return Output(
        tables={CAPTIONER_CHECKPOINT.name: CAPTIONER_CHECKPOINT.from_rows([row])},
        metrics={**measured, "parameters": tuned.trained_parameters, "base": tuned.base, "checkpoint": path},
    )


def _train_own(context: Context) -> Output:
    from captioner import evaluate
    from captioner.train.checkpoint import KIND, save_checkpoint
    from captioner.train.fit import stages_of
    from captioner.train.train import train

    table = context.read(PAIRS)
    trained_on = content_digest(table)
    pairs = [pair_of(row) for row in table.to_pylist()]
    config = context.settings
    run = digest(context.made_by, trained_on)
    progress = Progress("captioner_model", sum(stage.steps for stage in stages_of(config)), "step")
    trained = train(
        pairs,
        config,
        Kept(context.store, f"{run}.pt"),
        on_step=lambda done, note: progress.advance(done - progress.done, note),
        curve=functools.partial(RunLog, context.store, "captioner_model", run),
    )
    progress.close()
    sources = Counter(p.source for p in pairs)
    knows = "synthetic" if set(sources) == {"synthetic"} else "footage"
    measured = {
        "loss_first": round(trained.losses[0], 4),
        "loss_last": round(sum(trained.losses[-20:]) / len(trained.losses[-20:]), 4),
        "claim_precision": round(trained.held_out.precision().value, 4),
        "claim_recall": round(trained.held_out.recall().value, 4),
        "claim_f1": round(trained.held_out.f1, 4),
        "hallucinated_captions": round(trained.held_out.hallucinated / max(1, trained.held_out.captions), 4),
        "held_out_captions": trained.held_out.captions,
        "pairs_left_out": trained.left_out,
        **({"best_step": trained.best_step} if trained.best_step else {}),
    }
    recalls = {f: round(trained.held_out.recall(f).value, 3) for f in sorted(trained.held_out.true)}
    parameters = sum(p.numel() for p in trained.net.parameters())
    card = {"knows": knows, "trained on pairs": trained_on, "sources": dict(sources), "parameters": parameters}
    steps = len(trained.losses)
    card |= {"pairs": sum(sources.values()), "trained as": " then ".join(s.name for s in stages_of(config))}
    card |= {"steps": steps, "seed": config.seed, **measured, "recall by field": recalls}
    card |= {"95 % intervals": json.dumps(evaluate.report(trained.held_out), sort_keys=True)}
    card |= {"curve": f"logs/captioner_model/{run}", "made by": context.made_by}
    name, path = save_checkpoint(context.store, trained.net, trained.tokenizer, config.frames, card, trained.short_net)
    row = Checkpoint(
        digest=name,
        kind=KIND,
        path=path,
        knows=knows,
        trained_on=trained_on,
        steps=steps,
        metrics=json.dumps({**measured, "report": evaluate.report(trained.held_out)}, sort_keys=True),
        made_by=context.made_by,
    )
    return Output(
        tables={CAPTIONER_CHECKPOINT.name: CAPTIONER_CHECKPOINT.from_rows([row])},
        metrics={**measured, "parameters": parameters, "knows": knows, "checkpoint": path},
    )


def pair_of(row: dict[str, Any]) -> Pair:
    """A row of table `pairs` with its record."""
    return Pair(**{**row, "fields": None if row["fields"] is None else fields_of(row["fields"])})


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Who captions, and what it is shown."""

    checkpoint: str
    """Folder of the trained weights or adapter, relative to the root; empty for other models."""
    spec: FrameSpec
    origin: Origin


def source_of(context: Context) -> Source:
    """Who captions here, proved whole before any worker starts."""
    settings: Captioning = context.settings
    checkpoint, spec = _model(context, settings)
    knows = {"recaptioner": checkpoint.knows if checkpoint else "", "fake": "nothing"}.get(settings.backend, "general")
    origin = Origin(
        backend=settings.backend,
        knows=knows,
        model=checkpoint.digest if checkpoint else "",
        made_by=context.made_by,
    )
    return Source(checkpoint.path if checkpoint else "", spec, origin)


def jobs_of(context: Context, source: Source) -> tuple[list[Job], dict[str, str]]:
    """All clips to caption, and those that cannot be with the reason."""
    settings: Captioning = context.settings
    return look(context, source.spec, more=settings.retries > 0 and settings.backend in SEE_MORE)


def caption_clips(context: Context) -> Output:
    """Caption every clip that was kept."""
    settings: Captioning = context.settings
    source = source_of(context)
    spec, origin = source.spec, source.origin
    jobs, failed = jobs_of(context, source)
    before = _still_right(context, jobs)
    done = set(before["clip_id"].to_pylist())
    chunks = chunked([j for j in jobs if j.clip_id not in done], settings.batch_size)
    load = functools.partial(
        load_describer,
        root=context.store.root,
        checkpoint=source.checkpoint,
        spec=spec,
        origin=origin,
        settings=settings,
    )

    def on_error(chunk: Sequence[Job], failure: Failure) -> Tables:
        reason = f"the backend failed: {failure}"
        rows = [failed_row(j.clip_id, reason, origin, spec, settings, j) for j in chunk]
        return {CAPTIONS.name: CAPTIONS.from_rows(rows)}

    tables = context.each(
        load,
        chunks,
        key=key_of,
        outputs=(CAPTIONS,),
        on_error=on_error,
        unit="chunk",
        loaded=True,
        split=halved,
        keep=settled,
    )
    made = pa.concat_tables([before, tables[CAPTIONS.name]])
    blind = CAPTIONS.from_rows(failed_row(c, reason, origin, spec, settings) for c, reason in failed.items())
    table = CAPTIONS.sorted(pa.concat_tables([made, blind]))
    rows = to_rows(table, Caption)
    sheet = contact_sheet(_cells(rows, jobs))
    return Output(
        tables={CAPTIONS.name: table},
        metrics={**_metrics(rows, context, origin.knows), "kept_from_before": len(done)},
        pictures={"captions": sheet} if sheet else {},
    )


def _still_right(context: Context, jobs: Sequence[Job]) -> pa.Table:
    """Rows of the table as it stands that would come out the same: same code, settings and weights, same frames.

    Failures are not among them; they are tried again.
    """
    batch = context.batch.name if context.batch else None
    table = context.stage.writes[0]  # a teacher's captions are kept apart
    standing = None if context.only else context.store.committed(table, batch)
    if standing is None or standing.made_by != context.made_by:
        return CAPTIONS.empty()
    rows = context.store.read(table, batch=batch)
    seen = {j.clip_id: j.seen for j in jobs}
    right = [
        seen.get(clip) == frames and status != CaptionStatus.FAILED
        for clip, frames, status in zip(*(rows[c].to_pylist() for c in ("clip_id", "frame_digest", "status")))
    ]
    return CAPTIONS.conform(rows.filter(pa.array(right, pa.bool_())))


def _model(context: Context, settings: Captioning) -> tuple[Checkpoint | None, FrameSpec]:
    """The checkpoint, proved whole before any worker starts, and what it sees."""
    adapted = settings.vlm is not None and settings.vlm.adapter == TRAINED
    if settings.backend != "recaptioner" and not adapted:
        return None, settings.frames
    table = context.read_optional(CAPTIONER_CHECKPOINT)
    if table is None or not table.num_rows:
        raise MissingTable(
            f"backend `{settings.backend}` needs table `{CAPTIONER_CHECKPOINT.name}`, which was never made under "
            f"{context.store.root}: run stage `captioner_model` first, or name another backend"
        )
    from captioner.train.checkpoint import KIND, load_checkpoint

    row = to_rows(table, Checkpoint)[0]
    if adapted == (row.kind == KIND):
        wants, method = ("an adapter", "lora") if adapted else ("our own captioner", "scratch")
        raise ConfigError(
            f"backend `{settings.backend}` needs {wants}, and the trained checkpoint is a `{row.kind}`: run "
            f"`dailies captioner train --set captioner.method={method}`"
        )
    if adapted:
        return row, settings.frames
    return row, load_checkpoint(context.store.fetch(row.path)).frames


def _metrics(rows: Sequence[Caption], context: Context, knows: str) -> dict[str, Any]:
    ok = [r for r in rows if r.status == CaptionStatus.OK]
    metrics: dict[str, Any] = {f"captions_{s.value}": 0 for s in CaptionStatus}
    metrics |= Counter(f"captions_{r.status}" for r in rows)
    metrics |= {
        "clips": len(rows),
        "mean_tokens": round(sum(r.num_tokens for r in ok) / len(ok), 2) if ok else 0.0,
        "retried": sum(r.attempts > 1 for r in rows),
        "knows": knows,
    }
    if batches.beyond(knows, context.batch):
        metrics["note"] = "the captioner was trained on synthetic clips only: of this footage it guesses in their words"
    return metrics


def _cells(rows: Sequence[Caption], jobs: Sequence[Job]) -> list[tuple[bytes, str]]:
    """Up to eight clips spread evenly over the batch, each by its middle frame."""
    frames = {j.clip_id: j.jpegs[len(j.jpegs) // 2] for j in jobs}
    shown = [r for r in rows if r.status == CaptionStatus.OK and r.clip_id in frames]
    picked = [shown[i * len(shown) // min(len(shown), _SHEET_CELLS)] for i in range(min(len(shown), _SHEET_CELLS))]
    return [(frames[r.clip_id], r.short) for r in picked]


CAPTIONER_MODEL = Stage(
    name="captioner_model",
    version=3,
    reads=(PAIRS,),
    writes=(CAPTIONER_CHECKPOINT,),
    run=train_captioner,
    settings=lambda config: config.training(),
    doc="Trains the captioner on (clip, captions) pairs.",
)
CAPTIONS_STAGE = Stage(
    name="captions",
    version=3,  # a record that cannot be said again does not parse
    reads=(SELECTIONS, CLIPS, FRAMES, VIDEOS),
    writes=(CAPTIONS,),
    run=caption_clips,
    settings=lambda config: config.captioning(),
    optional=(CAPTIONER_CHECKPOINT,),
    doc="Writes a short and a dense caption for every clip that was kept.",
)
STAGES: tuple[Stage, ...] = (PAIRS_STAGE, CAPTIONER_MODEL, CAPTIONS_STAGE, CLAIMS_STAGE, EXPANDER)
