"""Stage `verdicts`: gather every score of every clip and ask the policy.  No decoding, no model.

Rules over CLIP columns do not decide where the CLIP knows only the synthetic world and the footage is not
of it; a rule over a table that was never made is skipped too.  Both say so in each row.  Of clips that show the same
the best one stays that the other rules keep, wherever it lies: scores of batches that hold better twins are read too.
"""

import dataclasses
import difflib
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from pipelines.contact_sheet import contact_sheet, evenly
from pipelines.execute import Context, Output, Stage
from pipelines.policy import twins
from pipelines.policy.rules import Rule, judge, select
from pipelines.policy.scoreboard import COLUMNS, SCORE_TABLES, SCOREBOARD, SCORER_TABLES, Standing, board, score_names
from pipelines.scorers.clip import CLIP_OUTPUTS, CLIP_TABLES
from pipelines.scorers.ocr import SCORE_OCR
from schemas import batches
from schemas.batches import beyond
from schemas.checkpoints import CLIP_CHECKPOINT
from schemas.clips import CLIPS, Clip
from schemas.errors import ConfigError, MissingTable
from schemas.scores import DUPLICATES
from schemas.store import Store
from schemas.table import Table, to_rows
from schemas.verdicts import SELECTIONS, VERDICTS, Selection, Verdict, VerdictRow
from schemas.videos import FRAMES, SCANS, VIDEOS

ONLY_SYNTHETIC = "CLIP scores come from a model that knows the synthetic world alone"
Rules = tuple[Rule, ...]
_OF_CLIPS = ("max_inner_boundary", "width", "height", "fps")


class Reader(Protocol):
    """Reads one batch's tables; `Context` is one."""

    def read(self, table: Table, columns: list[str] | None = None) -> pa.Table: ...

    def read_optional(self, table: Table, columns: list[str] | None = None) -> pa.Table | None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class _OtherBatch:
    """A batch that holds twins of ours; `outside` makes its scores inputs of this stage."""

    store: Store
    batch: str

    def read(self, table: Table, columns: list[str] | None = None) -> pa.Table:
        return self.store.read(table, batch=self.batch if table.partitioned else None, columns=columns)

    def read_optional(self, table: Table, columns: list[str] | None = None) -> pa.Table | None:
        try:
            return self.read(table, columns)
        except MissingTable:
            return None


def gather(reader: Reader, clips: list[Clip]) -> tuple[dict[str, dict[str, float | None]], set[str]]:
    """All scores by clip but `duplicates.cosine`, which the policy settles, and the columns there are."""
    scores: dict[str, dict[str, float | None]] = {c.clip_id: {} for c in clips}
    columns = {f"clips.{n}" for n in (*_OF_CLIPS, "short_side")} | {"scans.damaged_share"}
    damage = _damage(reader)
    for clip in clips:
        known = scores[clip.clip_id]
        known.update({f"clips.{n}": float(getattr(clip, n)) for n in _OF_CLIPS})
        known["clips.short_side"] = float(min(clip.width, clip.height))
        known["scans.damaged_share"] = damaged_share(clip, damage.get(clip.video_id, []))
    for table in SCORE_TABLES:
        rows = reader.read_optional(table)
        if rows is None or (clips and not rows.num_rows):  # without rows it was not made: no head, no text
            continue
        names = [n for n in score_names(table) if n in rows.column_names]
        columns |= {f"{table.name}.{n}" for n in names}
        for row in rows.select(["clip_id", *names]).to_pylist():
            if row["clip_id"] in scores:
                scores[row["clip_id"]].update({f"{table.name}.{n}": row[n] for n in names})
    return scores, columns


def _damage(reader: Reader) -> dict[str, list[str]]:
    scans = reader.read(SCANS, ["video_id", "damaged"])
    return dict(zip(scans["video_id"].to_pylist(), scans["damaged"].to_pylist()))


@dataclasses.dataclass(frozen=True, slots=True)
class _Judged:
    """One batch's clips before likeness is asked about."""

    clips: list[Clip]
    scores: dict[str, dict[str, float | None]]
    columns: set[str]
    foreign: bool
    skip: dict[str, str]
    plain: dict[str, Selection]
    """What all rules say that do not read `duplicates.cosine`."""


def _judged(
    reader: Reader, batch: batches.Batch | None, rules: tuple[Rule, ...], knows: str, repeated: bool
) -> _Judged:
    clips = to_rows(reader.read(CLIPS), Clip)
    scores, columns = gather(reader, clips)
    if repeated:
        columns.add(twins.COLUMN)
    foreign = beyond(knows, batch)
    skip = skipped(rules, {c.split(".")[0] for c in columns}, foreign)
    others = [r for r in rules if not twins.reads_twins(r)]
    plain = {i: select(i, judge(i, known, others, skip, ""), "") for i, known in scores.items()}
    return _Judged(clips, scores, columns, foreign, skip, plain)


def _scores_elsewhere(store: Store, batch: batches.Batch | None) -> Any:
    """For the stage's digest: what the scores of twins in other batches were when they were read."""
    others = sorted(twins.batches_of_twins(store, [batch.name])) if batch else []
    tables = (CLIPS, SCANS, *SCORE_TABLES)
    known = {o: {t.name: c.content for t in tables if (c := store.committed(t, o)) is not None} for o in others}
    return {o: found for o, found in known.items() if found}


def damaged_share(clip: Clip, spans: list[str]) -> float:
    """Share of the clip inside spans given as `start_s-end_s` (`-end` for: to the end)."""
    lost = 0.0
    for span in spans:
        start, _, end = span.rpartition("-")
        last = clip.end_s if end == "end" else float(end)
        lost += max(0.0, min(last, clip.end_s) - max(float(start), clip.start_s) - 0.001)  # spans are rounded to 1 ms
    return min(1.0, lost / max(clip.end_s - clip.start_s, 1e-9))


def skipped(rules: tuple[Rule, ...], tables: Collection[str], foreign: bool) -> dict[str, str]:
    """Rules that do not decide here, and why.

    Args:
        tables: Names of the tables that were made for this batch.

    Raises:
        ConfigError: If a rule reads a column that no stage writes; names the nearest that one does.
    """
    skip = {}
    for rule in rules:
        table = rule.column.split(".")[0]
        if rule.not_applied:
            skip[rule.name] = rule.not_applied
        elif rule.column not in COLUMNS:
            near = difflib.get_close_matches(rule.column, COLUMNS, n=3, cutoff=0.5)
            hint = f"; near it: {', '.join(near)}" if near else f"; tables: {', '.join(t.name for t in SCORE_TABLES)}"
            raise ConfigError(f"rule `{rule.name}` reads `{rule.column}`, which no stage writes{hint}")
        elif table not in tables:
            skip[rule.name] = f"table `{table}` was not made for this batch"
        elif table in CLIP_TABLES and foreign:
            skip[rule.name] = ONLY_SYNTHETIC
    return skip


def clip_knows(context: Context) -> str:
    """What the CLIP in use was trained on; empty if there is none."""
    rows = context.read_optional(CLIP_CHECKPOINT, ["knows"])
    return str(rows["knows"][0].as_py()) if rows is not None and rows.num_rows else ""


def _verdicts(context: Context) -> Output:
    rules: tuple[Rule, ...] = context.settings
    repeated, knows = context.read_optional(DUPLICATES), clip_knows(context)
    mine = _judged(context, context.batch, rules, knows, repeated is not None)
    rows_of = {i: judge(i, known, rules, mine.skip, context.made_by) for i, known in mine.scores.items()}
    if repeated is not None:
        likeness = _likeness(context, mine, rules, knows, repeated)
        for clip_id, known in mine.scores.items():
            known[twins.COLUMN] = likeness.score.get(clip_id, 0.0)
            rows = judge(clip_id, known, rules, mine.skip, context.made_by)
            rows_of[clip_id] = [likeness.explained(r) if r.score_column == twins.COLUMN else r for r in rows]
    words = [(rows_of[c.clip_id], select(c.clip_id, rows_of[c.clip_id], context.made_by)) for c in mine.clips]
    selections = [s for _, s in words]
    made = {
        VERDICTS.name: VERDICTS.from_rows([r for rows, _ in words for r in rows]),
        SELECTIONS.name: SELECTIONS.from_rows(selections),
        SCOREBOARD.name: board(mine.clips, mine.scores, words, context.made_by, twins.in_pairs(repeated)),
    }
    tables = tuple(sorted({c.split(".")[0] for c in mine.columns}))
    stands = Standing(rules=rules, skipped=mine.skip, tables=tables, foreign=mine.foreign)
    metrics = {**_metrics(mine.clips, selections, mine.skip), "policy": stands.as_metric()}
    if mine.foreign:
        metrics["note"] = ONLY_SYNTHETIC
    return Output(made, metrics=metrics, pictures=_pictures(context, mine.clips, selections))


@dataclasses.dataclass(frozen=True, slots=True)
class _Likeness:
    """How much each clip is like one that is kept, and who its better twins are."""

    score: dict[str, float]
    stays: dict[str, bool]
    plain: dict[str, Selection]
    better: dict[str, list[tuple[str, str]]]

    def explained(self, row: VerdictRow) -> VerdictRow:
        def why_not(clip_id: str) -> str:
            return ", ".join(self.plain[clip_id].reasons) if clip_id in self.plain else ""

        found = self.better.get(row.clip_id, [])
        return twins.explained(row, found, lambda c: self.stays[c], lambda c: why_not(c) or "it has a better twin")


def _likeness(context: Context, mine: _Judged, rules: tuple[Rule, ...], knows: str, duplicates: pa.Table) -> _Likeness:
    """Settle who stays of this batch's twins, with those of other batches; one whose batch has no scores yet stays."""
    plain = dict(mine.plain)
    for name in sorted(twins.batches_of_twins(context.store, [context.batch.name] if context.batch else [])):
        if name in context.store.batches(CLIPS):
            other = _OtherBatch(context.store, name)
            judged = _judged(other, batches.get(context.store, name), rules, knows, True)
            plain = judged.plain | plain
    names = sorted({*duplicates["clip_id"].to_pylist(), *duplicates["kept_clip_id"].to_pylist()})
    passes = np.array([n not in plain or plain[n].verdict == Verdict.KEEP for n in names], bool)
    bounds = [(r.min, r.max) for r in rules if twins.reads_twins(r) and r.name not in mine.skip]
    score, stays = twins.pairs_of(duplicates, {n: i for i, n in enumerate(names)}).settle(passes, bounds)
    better: dict[str, list[tuple[str, str]]] = {}
    for row in sorted(duplicates.to_pylist(), key=lambda r: (-r["cosine"], r["kept_clip_id"])):
        better.setdefault(row["clip_id"], []).append((row["kept_clip_id"], row["why"]))
    return _Likeness(dict(zip(names, score.tolist())), dict(zip(names, stays.tolist())), plain, better)


def _metrics(clips: list[Clip], selections: list[Selection], skip: Mapping[str, str]) -> dict[str, Any]:
    words = Counter(str(s.verdict) for s in selections)
    reasons = Counter(r for s in selections for r in s.reasons if s.verdict == Verdict.REJECT)
    seconds = {c.clip_id: c.end_s - c.start_s for c in clips}
    kept_s = sum(seconds[s.clip_id] for s in selections if s.verdict == Verdict.KEEP)
    return {
        "clips": len(clips),
        **{f"clips_{v}": words.get(v, 0) for v in (Verdict.KEEP, Verdict.REJECT, Verdict.ERROR)},
        **{f"rejected_by_{rule}": count for rule, count in sorted(reasons.items())},
        "kept_hours": round(kept_s / 3600, 5),
        "skipped_rules": ", ".join(sorted(skip)),
    }


def _pictures(context: Context, clips: list[Clip], selections: list[Selection]) -> dict[str, bytes]:
    """Kept clips on one sheet, rejected ones by reason on another."""
    frames = context.read(FRAMES, ["video_id", "frame_index"])
    where: dict[str, list[tuple[int, int]]] = {}
    for row, (video, index) in enumerate(zip(frames["video_id"].to_pylist(), frames["frame_index"].to_pylist())):
        where.setdefault(video, []).append((index, row))
    spans = {c.clip_id: c for c in clips}
    kept, rejected = [], []
    for s in selections:
        clip = spans[s.clip_id]
        inside = [row for i, row in where.get(clip.video_id, []) if clip.start_frame <= i < clip.end_frame]
        if not inside:
            continue
        middle = inside[len(inside) // 2]
        if s.verdict == Verdict.KEEP:
            kept.append((f"{s.clip_id[:8]} {clip.end_s - clip.start_s:.1f}s", middle))
        else:
            rejected.append((f"{', '.join(s.reasons)}", middle))
    sheets = {"kept": evenly(kept), "rejected": evenly(sorted(rejected))}
    jpegs = {name: context.pictures(FRAMES, [r for _, r in some]) for name, some in sheets.items()}
    return {
        name: contact_sheet([(jpeg, label) for jpeg, (label, _) in zip(jpegs[name], some)])
        for name, some in sheets.items()
    }


VERDICTS_STAGE = Stage(
    name="verdicts",
    version=3,  # of twins the best that the other rules keep stays
    reads=(CLIPS, SCANS, VIDEOS, FRAMES, *SCORER_TABLES),
    optional=(DUPLICATES, SCORE_OCR, *CLIP_OUTPUTS, CLIP_CHECKPOINT),
    writes=(VERDICTS, SELECTIONS, SCOREBOARD),
    run=_verdicts,
    settings=lambda config: config.policy.resolved(),
    outside=_scores_elsewhere,
    doc="Ask the policy of every clip.",
)
