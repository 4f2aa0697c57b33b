"""Stage `manifest`: freeze the kept and captioned clips of all batches as an immutable snapshot.

A clip is in if the policy kept it, its file is there, its caption is ok, and the caption gate lets it pass
(`pipelines/manifest/gate.py`).  Where a caption's claims were checked, the texts are those without what the clip
contradicts.  The snapshot's digest is a hash of its rows, so the same content has the same name, whoever froze it and
when.
`<root>/manifests/<digest>/part-00000.parquet` is written first and `_manifest.json` last: a folder without
it is not a manifest.  The table `manifest` holds the newest snapshot's rows.
"""

import dataclasses
import hashlib
import io
import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.execute import Context, Output, Stage
from pipelines.manifest.gate import CAPTION_RULES, gate_rules, judged
from pipelines.policy.rules import Rule
from pipelines.policy.twins import Bounds, pairs_of, reads_twins
from pipelines.scorers import SCORERS
from pipelines.scorers.clip import CLIP_OUTPUTS
from pipelines.scorers.ocr import SCORE_OCR
from schemas.captions import CAPTION_CLAIMS, CAPTION_SCORES, CAPTIONS, CaptionStatus
from schemas.clips import CLIP_FILES, CLIPS
from schemas.ids import canonical_json, digest
from schemas.manifest import MANIFEST, ManifestRow
from schemas.scores import CLUSTERS, DUPLICATES
from schemas.store import ROW_GROUP_ROWS, Store, content_digest
from schemas.table import Table
from schemas.verdicts import CAPTION_VERDICTS, SELECTIONS, Verdict, VerdictRow
from schemas.videos import VIDEOS

_SCORES: tuple[Table, ...] = (*(s.table for s in SCORERS), SCORE_OCR, *CLIP_OUTPUTS, CAPTION_SCORES)
_NOT_SCORES = {"clip_id", "error", "made_by", "model", "sentences"}
_ASPECTS = {"16:9": 16 / 9, "9:16": 9 / 16, "4:3": 4 / 3, "3:4": 3 / 4, "1:1": 1.0, "2.39:1": 2.39, "21:9": 21 / 9}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ManifestConfig:
    """What goes into a manifest."""

    min_dense_score: float | None = None
    """Smallest mean CLIP cosine of a dense caption, [-1, 1]; None for no bound."""
    cluster_weights: bool = True
    """Sampling weights by the size of a clip's group of like clips (table `clusters`); 1 for all otherwise."""
    caption_rules: tuple[Rule, ...] = CAPTION_RULES
    """The caption gate: rules over `caption_scores` and `caption_claims`."""
    caption_bounds: tuple[str, ...] = ()
    """Bounds of the gate moved, as in a policy: `contradicted.max=0.2`, `caption_scores.dense_min.min=0`."""
    checked_texts: bool = True
    """Take captions without the claims that their clips contradict, where claims were checked."""


def _rows_by_clip(store: Store, table: Table, batch: str) -> dict[str, dict[str, Any]]:
    if batch not in store.batches(table):
        return {}
    return {r["clip_id"]: r for r in store.read(table, batch=batch).to_pylist()}


def batch_rows(
    store: Store, batch: str, policy: str, config: ManifestConfig, made_by: str = ""
) -> tuple[list[dict[str, Any]], Counter[str], list[VerdictRow]]:
    """Rows of one batch, how many kept clips are left out for what reason, and the caption gate's verdicts."""
    left_out: Counter[str] = Counter()
    verdicts: list[VerdictRow] = []
    rules = gate_rules(config.caption_rules, config.caption_bounds)
    videos = {v["video_id"]: v for v in store.read(VIDEOS, batch=batch).to_pylist() if v["duplicate_of"] is None}
    clips, files = _rows_by_clip(store, CLIPS, batch), _rows_by_clip(store, CLIP_FILES, batch)
    captions, claims = _rows_by_clip(store, CAPTIONS, batch), _rows_by_clip(store, CAPTION_CLAIMS, batch)
    scores = {t.name: _rows_by_clip(store, t, batch) for t in _SCORES}
    rows = []
    for selection in store.read(SELECTIONS, batch=batch).to_pylist():
        if selection["verdict"] != Verdict.KEEP:
            continue
        name = selection["clip_id"]
        file, caption = files.get(name), captions.get(name)
        known = _scores_of(name, scores)
        dense = known.get("caption_scores.dense_mean")
        reason = _left_out(file, caption, dense, config)
        if not reason:
            words = judged(name, known, claims.get(name), rules, made_by)
            verdicts += words
            reason = next((f"caption_gate_{w.rule}" for w in words if w.verdict == Verdict.REJECT), "")
        if reason or file is None or caption is None:
            left_out[reason] += 1
            continue
        said = claims[name] if config.checked_texts and name in claims else {}
        caption = {**caption, **{k: said[k] for k in ("short", "dense", "fields") if k in said}}
        rows.append(_row(clips[name], videos[clips[name]["video_id"]], file, caption, known, batch, policy))
    return rows, left_out, verdicts


def _left_out(
    file: dict[str, Any] | None, caption: dict[str, Any] | None, dense: float | None, config: ManifestConfig
) -> str:
    """Why a kept clip is not in the manifest; empty if it is."""
    if file is None or file["status"] != "ok":
        return "no_clip_file"
    if caption is None:
        return "no_caption"
    if caption["status"] != CaptionStatus.OK:
        return f"caption_{caption['status']}"
    if config.min_dense_score is not None and (dense is None or dense < config.min_dense_score):
        return "caption_score"
    return ""


def _scores_of(name: str, scores: dict[str, dict[str, dict[str, Any]]]) -> dict[str, float]:
    found = {}
    for table, rows in scores.items():
        for column, value in rows.get(name, {}).items():
            if column not in _NOT_SCORES and value is not None:
                found[f"{table}.{column}"] = round(float(value), 6)
    return found


def _row(
    clip: dict[str, Any],
    video: dict[str, Any],
    file: dict[str, Any],
    caption: dict[str, Any],
    scores: dict[str, float],
    batch: str,
    policy: str,
) -> dict[str, Any]:
    row = ManifestRow(
        clip_id=clip["clip_id"],
        manifest="",
        video_id=clip["video_id"],
        batch=batch,
        source=f"{video['folder'].rstrip('/')}/{video['path']}",
        start_s=clip["start_s"],
        end_s=clip["end_s"],
        path=file["path"],
        width=file["width"],
        height=file["height"],
        fps=file["fps"],
        num_frames=file["num_frames"],
        short=caption["short"],
        dense=caption["dense"],
        fields=caption["fields"],
        caption_model=caption["model"],
        scores=json.dumps(scores, sort_keys=True),
        weight=1.0,
        licence=video["licence"],
        policy=policy,
        human=video["text"] or "",
    )
    return {f.name: getattr(row, f.name) for f in dataclasses.fields(row)}


def freeze(store: Store, rows: list[dict[str, Any]], facts: dict[str, Any]) -> tuple[str, pa.Table]:
    """Write the snapshot (if it is not there) and return its digest and rows.

    The folder that a source lies in is no part of the digest: moving footage changes no manifest.
    """
    named = [{**r, "source": r["source"].rsplit("/", 1)[-1]} for r in rows]
    name = digest("manifest", content_digest(MANIFEST.from_rows(named)), facts["policy"])
    table = MANIFEST.from_rows([{**r, "manifest": name} for r in rows])
    if not store.exists("manifests", name, "_manifest.json"):
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", row_group_size=ROW_GROUP_ROWS)
        data = buffer.getvalue()
        store.write_bytes(data, "manifests", name, "part-00000.parquet")
        note = {**facts, "digest": name, "rows": table.num_rows, "sha256": hashlib.sha256(data).hexdigest()}
        store.write_json(note, "manifests", name, "_manifest.json")
    return name, table


def _manifest(context: Context) -> Output:
    config, rules = context.settings
    store, policy = context.store, digest("policy", rules)
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    batches = store.batches(SELECTIONS)
    verdicts: dict[tuple[str, str], VerdictRow] = {}
    for batch in batches:
        more, missing, words = batch_rows(store, batch, policy, config, context.made_by)
        rows += more
        left_out += missing
        for word in words:
            verdicts.setdefault((word.clip_id, word.rule), word)
    rows, repeated = _first_of_each(rows)
    bounds = [(r.min, r.max) for r in rules if reads_twins(r)]
    single = _without_twins(rows, context.read_optional(DUPLICATES), bounds)
    left_out["near_duplicate"] += len(rows) - len(single)
    rows = single
    if config.cluster_weights:
        rows = _weighted(rows, _optional(context, CLUSTERS, ["clip_id", "weight"]))
    facts = {
        "policy": policy,
        "rules": json.loads(canonical_json(rules)),
        "config": json.loads(canonical_json(config)),
        "batches": batches,
        "caption_models": sorted({r["caption_model"] for r in rows}),
        "hours": round(_hours(rows), 6),
    }
    name, table = freeze(store, rows, facts)
    metrics = {
        "manifest": name,
        "clips": table.num_rows,
        "hours": round(_hours(rows), 5),
        "repeated_across_batches": repeated,
        **{f"left_out_{k}": v for k, v in sorted(left_out.items()) if v},
        **{f"aspect_{k}": v for k, v in sorted(Counter(aspect(r["width"], r["height"]) for r in rows).items())},
    }
    gate = CAPTION_VERDICTS.from_rows(verdicts.values())
    return Output({MANIFEST.name: table, CAPTION_VERDICTS.name: gate}, metrics=metrics)


def _first_of_each(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """The same clip may come in two batches (the same file in two folders): the first batch keeps it."""
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(row["clip_id"], row)
    return list(first.values()), len(rows) - len(first)


def _optional(context: Context, table: Table, columns: list[str]) -> list[dict[str, Any]]:
    found = context.read_optional(table, columns)
    return found.to_pylist() if found is not None else []


def _without_twins(rows: list[dict[str, Any]], duplicates: pa.Table | None, bounds: Bounds) -> list[dict[str, Any]]:
    """Leave out a near-duplicate whose better twin is in: a batch judged before its twin came still keeps it.

    Args:
        bounds: Of the policy's rules on likeness; without any, all stay.
    """
    places = {clip: i for i, clip in enumerate(sorted({r["clip_id"] for r in rows}))}
    _, stays = pairs_of(duplicates, places).settle(np.ones(len(places), bool), bounds)
    return [r for r in rows if stays[places[r["clip_id"]]]]


def _weighted(rows: list[dict[str, Any]], clusters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with their groups' sampling weights, mean 1 over the manifest."""
    weights = {c["clip_id"]: c["weight"] for c in clusters}
    mean = sum(weights.get(r["clip_id"], 1.0) for r in rows) / max(1, len(rows))
    return [{**r, "weight": round(weights.get(r["clip_id"], 1.0) / mean, 6)} for r in rows]


def _hours(rows: list[dict[str, Any]]) -> float:
    return sum(r["num_frames"] / r["fps"] for r in rows if r["fps"]) / 3600


def aspect(width: int, height: int) -> str:
    """Name of the nearest common aspect ratio, for counting only; nothing is reshaped to it."""
    ratio = width / max(height, 1)
    return min(_ASPECTS, key=lambda n: abs(ratio / _ASPECTS[n] - 1))


MANIFEST_STAGE = Stage(
    name="manifest",
    version=4,  # captions without what their clips contradict, behind a gate
    reads=(SELECTIONS, CLIPS, VIDEOS, CLIP_FILES, CAPTIONS, *(s.table for s in SCORERS)),
    optional=(SCORE_OCR, *CLIP_OUTPUTS, CAPTION_SCORES, CAPTION_CLAIMS, DUPLICATES, CLUSTERS),
    writes=(MANIFEST, CAPTION_VERDICTS),
    run=_manifest,
    settings=lambda config: (config.manifest, config.policy.resolved()),
    doc="Freeze kept and captioned clips as an immutable snapshot.",
)
