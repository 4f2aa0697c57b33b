"""Stage `evaluation`: every room against the truth, one row per measured rate.

It reads what there is and measures what it can: without truth (footage of yours) only the plain numbers are
written.  Generated videos are judged by the probe, once against their own prompts and once, as a control,
against the prompts of others: what the control scores is what the attributes' frequencies alone give.  Prompts for
combinations that no training clip shows are counted apart (`combinations.py`).
Cost: about 30 ms per generated video, else seconds.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow.compute as pc

from pipelines.execute import Context, Output, Stage
from pipelines.synthetic import evaluate
from pipelines.synthetic.combinations import Shown, apart, clips_showing, shown_by
from pipelines.synthetic.evaluate import Batch, EvaluationConfig, number, rate
from pipelines.synthetic.world import generator
from schemas.captions import CAPTIONS, Caption, Fields, fields_of
from schemas.clips import CLIPS, Clip
from schemas.errors import MissingTable
from schemas.ledger import LEDGER, LedgerRow
from schemas.samples import EVALUATION, JUDGEMENTS, PROMPTS, SAMPLES, Judgement, Measure
from schemas.shots import BOUNDARIES, SHOTS, BoundaryRow, Shot
from schemas.store import Store
from schemas.table import Table, to_rows
from schemas.truth import TRUTH_SHOTS, TRUTH_VIDEOS, TruthShot, TruthVideo
from schemas.verdicts import SELECTIONS, VERDICTS, Selection, Verdict, VerdictRow
from schemas.videos import SCANS, VIDEOS, Scan, Video

_READS = (
    TRUTH_VIDEOS, TRUTH_SHOTS, VIDEOS, SCANS, SHOTS, BOUNDARIES, CLIPS, VERDICTS, SELECTIONS, CAPTIONS, PROMPTS,
    SAMPLES, LEDGER,
)  # fmt: skip
Row = TypeVar("Row")
log = logging.getLogger(__name__)


def to_fields(value: Mapping[str, Any] | None) -> Fields | None:
    """A caption record as Arrow gives it, made a `Fields` again."""
    return None if value is None else fields_of(value)


def _rows(store: Store, table: Table, row: type[Row], batch: str | None) -> list[Row]:
    """Rows of a table that may never have been made, with their records."""
    if batch is not None and store.committed(table, batch) is None:
        return []
    plain = store.read(table, batch=batch)
    if "fields" not in plain.column_names:
        return to_rows(plain, row)
    return [row(**{**r, "fields": to_fields(r["fields"])}) for r in plain.to_pylist()]


def load_batch(store: Store, name: str) -> Batch:
    """All that is known of a batch."""
    return Batch(
        truth_videos=_rows(store, TRUTH_VIDEOS, TruthVideo, name),
        truth_shots=_rows(store, TRUTH_SHOTS, TruthShot, name),
        videos=_rows(store, VIDEOS, Video, name),
        scans=_rows(store, SCANS, Scan, name),
        shots=_rows(store, SHOTS, Shot, name),
        boundaries=_rows(store, BOUNDARIES, BoundaryRow, name),
        clips=_rows(store, CLIPS, Clip, name),
        verdicts=_rows(store, VERDICTS, VerdictRow, name),
        selections=_rows(store, SELECTIONS, Selection, name),
        captions=_rows(store, CAPTIONS, Caption, name),
    )


def measure_batches(batches: list[Batch], config: EvaluationConfig) -> list[Measure]:
    """Boundaries, policy and captions over all synthetic batches together."""
    rows: list[Measure] = []
    if any(b.shots for b in batches):
        results = [evaluate.boundaries(b, config) for b in batches]
        rows += evaluate.measures("boundaries", evaluate.add(t for t, _ in results))
        rows.append(rate("boundaries", "all", "label", *(sum(n) for n in zip(*(n for _, n in results)))))
    if any(b.verdicts for b in batches):
        rows += evaluate.measures("policy", evaluate.add(evaluate.policy(b, config) for b in batches))
    if any(b.captions for b in batches):
        told = [evaluate.captions(b, config) for b in batches]
        rows += evaluate.measures("captions", evaluate.add(t for t, _, _ in told))
        rows.append(rate("captions", "all", "hallucinated_captions", *(sum(n) for n in zip(*(n for _, n, _ in told)))))
        rows.append(rate("captions", "all", "ok", *(sum(n) for n in zip(*(n for _, _, n in told)))))
    return rows


def judge_samples(
    store: Store,
    samples: list[dict[str, Any]],
    prompts: list[dict[str, Any]],
    seed: int,
    shown: Shown | None = None,
) -> tuple[list[Measure], list[Judgement]]:
    """Probe every sample whose prompt's truth is known; score it against its own prompt and another's.

    With `shown`, what training shows, prompts for seen and for unseen combinations are scored apart, too.
    """
    from pipelines.synthetic.probe import CHANCE, probe
    from pipelines.video.read import read_frames

    asked_of = {p["prompt_id"]: a for p in prompts if (a := _asked(p["fields"]))}
    seen: list[dict[str, str]] = []
    asked: list[dict[str, str]] = []
    names: list[str] = []
    for sample in sorted(samples, key=lambda s: s["prompt_id"]):
        if sample["prompt_id"] not in asked_of or sample["status"] != "ok":
            continue
        try:
            frames, _ = read_frames(store.fetch(sample["path"]))
        except (OSError, ValueError, MissingTable) as e:  # a video that does not play shows nothing of what was asked
            log.warning("sample %s does not play: %s", sample["prompt_id"], e)
            seen.append({})
        else:
            seen.append(probe(frames))
        asked.append(asked_of[sample["prompt_id"]])
        names.append(sample["prompt_id"])
    others = [asked[i] for i in derangement(len(asked), seed)] if len(asked) > 1 else []
    rows = evaluate.attributes("generated", seen, asked, CHANCE)
    if others:
        rows += evaluate.attributes("control", seen, others, CHANCE)
    if shown is not None and asked:
        rows += apart(shown, seen, asked, others, CHANCE)
    return rows, [j for name, s, a in zip(names, seen, asked) for j in _judgements(name, s, a, shown)]


def _judgements(
    prompt_id: str, seen: Mapping[str, str], asked: Mapping[str, str], shown: Shown | None
) -> list[Judgement]:
    clips = {f"clips_{k}": v for k, v in clips_showing(shown, asked).items()} if shown is not None else {}
    return [
        Judgement(prompt_id=prompt_id, name=n, asked=a, found=seen.get(n, ""), right=seen.get(n) == a, **clips)
        for n, a in asked.items()
    ]


def _asked(fields: Mapping[str, Any] | None) -> dict[str, str]:
    """Attributes that a prompt of one subject asks for; nothing if there are several, or events."""
    if fields is None or len(fields["subjects"]) != 1 or fields["events"]:
        return {}
    main = fields["subjects"][0]
    wanted = {name: main[name] for name in ("color", "shape", "motion")}
    return wanted | {"background": fields["background"], "camera": fields["camera"]}


def derangement(count: int, seed: int) -> list[int]:
    """A shuffle in which nobody stays in place."""
    order = generator("derangement", seed, count).permutation(count)
    found = [0] * count
    for here, there in zip(order, np.roll(order, 1)):
        found[int(here)] = int(there)
    return found


def run(context: Context) -> Output:
    """Measure all that can be."""
    config: EvaluationConfig = context.settings
    store = context.store
    loaded = [load_batch(store, name) for name in store.batches(TRUTH_SHOTS)]
    rows = measure_batches([b for b in loaded if b.truth_shots and b.videos], config)
    selections = context.read_optional(SELECTIONS, ["verdict"])
    if selections is not None:
        words = selections["verdict"].to_pylist()
        rows.append(rate("policy", "kept", "share", words.count(Verdict.KEEP), len(words)))
    samples, prompts, ledger = (context.read_optional(t) for t in (SAMPLES, PROMPTS, LEDGER))
    judged: Sequence[Judgement] = ()
    if samples is not None and prompts is not None:
        shown = None if ledger is None else shown_by(loaded, pc.unique(ledger["clip_id"]).to_pylist())
        if shown is None:
            log.warning("no training ledger, or clips in it whose truth is not known: no prompt is called unseen")
        of_samples, judged = judge_samples(store, samples.to_pylist(), prompts.to_pylist(), config.seed, shown)
        rows += of_samples
    if ledger is not None:
        rows += evaluate.training(to_rows(ledger, LedgerRow))
    if not rows:
        rows = [number("policy", "all", "nothing_to_measure", None)]
    numbers = {f"{m.group}.{m.name}.{m.metric}": round(m.value, 4) for m in rows if m.value is not None}
    tables = {EVALUATION.name: EVALUATION.from_rows(rows), JUDGEMENTS.name: JUDGEMENTS.from_rows(judged)}
    return Output(tables=tables, metrics=numbers)


EVALUATION_STAGE = Stage(
    name="evaluation",
    version=4,
    reads=(),
    optional=_READS,
    writes=(EVALUATION, JUDGEMENTS),
    run=run,
    settings=lambda c: c.synthetic.evaluation,
    doc="Measures every room against the truth.",
)
