"""Stage `verdicts`: gather every score of every clip and ask the policy.  No decoding, no model.

Rules over CLIP columns do not decide where the CLIP knows only the synthetic world and the footage is not
of it; a rule over a table that was never made is skipped too.  Both say so in each row.
"""

import difflib
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from pipelines.contact_sheet import contact_sheet
from pipelines.execute import Context, Output, Stage
from pipelines.policy.rules import Rule, judge, select
from pipelines.policy.scoreboard import COLUMNS, SCORE_TABLES, SCOREBOARD, SCORER_TABLES, Standing, board, score_names
from pipelines.scorers.clip import CLIP_OUTPUTS, CLIP_TABLES
from pipelines.scorers.ocr import SCORE_OCR
from schemas.batches import beyond
from schemas.checkpoints import CLIP_CHECKPOINT
from schemas.clips import CLIPS, Clip
from schemas.errors import ConfigError
from schemas.scores import DUPLICATES
from schemas.table import to_rows
from schemas.verdicts import SELECTIONS, VERDICTS, Selection, Verdict
from schemas.videos import FRAMES, SCANS, VIDEOS

ONLY_SYNTHETIC = "CLIP scores come from a model that knows the synthetic world alone"
_OF_CLIPS = ("max_inner_boundary", "width", "height", "fps")


def gather(context: Context, clips: list[Clip]) -> tuple[dict[str, dict[str, float | None]], set[str]]:
    """All scores by clip, and the columns there are."""
    scores: dict[str, dict[str, float | None]] = {c.clip_id: {} for c in clips}
    columns = {f"clips.{n}" for n in (*_OF_CLIPS, "short_side")} | {"scans.damaged_share"}
    damage = _damage(context)
    for clip in clips:
        known = scores[clip.clip_id]
        known.update({f"clips.{n}": float(getattr(clip, n)) for n in _OF_CLIPS})
        known["clips.short_side"] = float(min(clip.width, clip.height))
        known["scans.damaged_share"] = damaged_share(clip, damage.get(clip.video_id, []))
    for table in SCORE_TABLES:
        rows = context.read_optional(table)
        if rows is None or (clips and not rows.num_rows):  # without rows it was not made: no head, no text
            continue
        names = [n for n in score_names(table) if n in rows.column_names]
        columns |= {f"{table.name}.{n}" for n in names}
        for row in rows.select(["clip_id", *names]).to_pylist():
            if row["clip_id"] in scores:
                scores[row["clip_id"]].update({f"{table.name}.{n}": row[n] for n in names})
    repeated = context.read_optional(DUPLICATES)
    if repeated is not None:
        columns.add("duplicates.cosine")
        cosine = dict(zip(repeated["clip_id"].to_pylist(), repeated["cosine"].to_pylist()))
        for clip in clips:
            scores[clip.clip_id]["duplicates.cosine"] = cosine.get(clip.clip_id, 0.0)
    return scores, columns


def _damage(context: Context) -> dict[str, list[str]]:
    scans = context.read(SCANS, ["video_id", "damaged"])
    return dict(zip(scans["video_id"].to_pylist(), scans["damaged"].to_pylist()))


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
    clips = to_rows(context.read(CLIPS), Clip)
    rules: tuple[Rule, ...] = context.settings
    scores, columns = gather(context, clips)
    tables = sorted({c.split(".")[0] for c in columns})
    foreign = beyond(clip_knows(context), context.batch)
    skip = skipped(rules, tables, foreign)
    words = []
    for clip in clips:
        rows = judge(clip.clip_id, scores[clip.clip_id], rules, skip, context.made_by)
        words.append((rows, select(clip.clip_id, rows, context.made_by)))
    selections = [s for _, s in words]
    made = {
        VERDICTS.name: VERDICTS.from_rows([r for rows, _ in words for r in rows]),
        SELECTIONS.name: SELECTIONS.from_rows(selections),
        SCOREBOARD.name: board(clips, scores, words, context.made_by),
    }
    stands = Standing(rules=rules, skipped=skip, tables=tuple(tables), foreign=foreign)
    metrics = {**_metrics(clips, selections, skip), "policy": stands.as_metric()}
    if foreign:
        metrics["note"] = ONLY_SYNTHETIC
    return Output(made, metrics=metrics, pictures=_pictures(context, clips, selections))


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
    jpegs = context.read(FRAMES, ["jpeg"])["jpeg"]
    sheets = {"kept": kept, "rejected": sorted(rejected)}
    return {name: contact_sheet([(jpegs[r].as_py(), label) for label, r in some]) for name, some in sheets.items()}


VERDICTS_STAGE = Stage(
    name="verdicts",
    version=2,
    reads=(CLIPS, SCANS, VIDEOS, FRAMES, *SCORER_TABLES),
    optional=(DUPLICATES, SCORE_OCR, *CLIP_OUTPUTS, CLIP_CHECKPOINT),
    writes=(VERDICTS, SELECTIONS, SCOREBOARD),
    run=_verdicts,
    settings=lambda config: config.policy.resolved(),
    doc="Ask the policy of every clip.",
)
