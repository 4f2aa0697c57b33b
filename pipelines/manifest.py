"""Freeze what training may see: kept clips with a file and a good caption, as an immutable snapshot.

The snapshot is a folder named by the digest of its rows: `part-00000.parquet`, then `_manifest.json`, which is written
last and without which the folder is not a manifest.  The same rows give the same digest on any machine; no clock
enters.  The table `manifest` holds the newest snapshot's rows.  Every clip that is left out is counted with the reason.
Cost: one read of each table.
"""

import dataclasses
import json
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.embed import SCORE_CLIP
from pipelines.execute import Context, Output, Stage
from pipelines.scorers import SCORERS
from schemas.captions import CAPTION_SCORES, CAPTIONS, CaptionStatus
from schemas.clips import CLIP_FILES, CLIPS
from schemas.errors import WorldError
from schemas.manifest import MANIFEST
from schemas.store import Store, content_digest
from schemas.table import Table
from schemas.verdicts import SELECTIONS, Verdict
from schemas.videos import VIDEOS

SNAPSHOT = "_manifest.json"
_SCORES: tuple[Table, ...] = (*(s.table for s in SCORERS), SCORE_CLIP, CAPTION_SCORES)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ManifestConfig:
    """What it takes to be in the manifest, beyond being kept by the policy."""

    require_caption: bool = True
    """Leave out clips whose caption did not end with status ok."""


def _by_clip(context: Context, table: Table, batch: str) -> dict[str, dict[str, Any]]:
    """Rows of one batch by clip; empty when the table was not made for it."""
    if context.store.committed(table, batch) is None:
        return {}
    return {row["clip_id"]: row for row in context.store.read(table, batch=batch).to_pylist()}


def _scores(tables: dict[str, dict[str, dict[str, Any]]], clip_id: str) -> str:
    """All numbers known about a clip, as JSON `{table.column: value}`."""
    found = {
        f"{name}.{column}": value
        for name, rows in tables.items()
        for column, value in rows.get(clip_id, {}).items()
        if isinstance(value, float)
    }
    return json.dumps(found, sort_keys=True)


def _rows_of_batch(context: Context, batch: str, left_out: Counter[str]) -> list[dict[str, Any]]:
    config: ManifestConfig = context.settings
    clips, files = _by_clip(context, CLIPS, batch), _by_clip(context, CLIP_FILES, batch)
    captions = _by_clip(context, CAPTIONS, batch)
    scores = {t.name: _by_clip(context, t, batch) for t in _SCORES}
    first = [v for v in context.store.read(VIDEOS, batch=batch).to_pylist() if v["duplicate_of"] is None]
    videos = {v["video_id"]: v for v in first}
    rows = []
    for clip_id, selection in sorted(_by_clip(context, SELECTIONS, batch).items()):
        clip, file, caption = clips[clip_id], files.get(clip_id), captions.get(clip_id)
        if selection["verdict"] != Verdict.KEEP:
            left_out[f"verdict {selection['verdict']}"] += 1
        elif file is None or file["status"] != "ok":
            left_out["no clip file"] += 1
        elif config.require_caption and (caption is None or caption["status"] != CaptionStatus.OK):
            left_out[f"caption {caption['status'] if caption else 'missing'}"] += 1
        else:
            video = videos[clip["video_id"]]
            rows.append(_row(clip, file, caption, video, batch, _scores(scores, clip_id), selection["made_by"]))
    return rows


def _row(
    clip: dict[str, Any],
    file: dict[str, Any],
    caption: dict[str, Any] | None,
    video: dict[str, Any],
    batch: str,
    scores: str,
    policy: str,
) -> dict[str, Any]:
    said = caption or {"short": "", "dense": "", "fields": None, "model": ""}
    return {
        "clip_id": clip["clip_id"],
        "video_id": clip["video_id"],
        "batch": batch,
        "source": f"{video['folder'].rstrip('/')}/{video['path']}",
        "start_s": clip["start_s"],
        "end_s": clip["end_s"],
        "path": file["path"],
        "width": file["width"],
        "height": file["height"],
        "fps": file["fps"],
        "num_frames": file["num_frames"],
        "short": said["short"],
        "dense": said["dense"],
        "fields": said["fields"] or {"subjects": [], "relation": "", "events": [], "camera": "", "background": ""},
        "caption_model": said["model"],
        "scores": scores,
        "weight": 1.0,
        "licence": video["licence"],
        "policy": policy,
    }


def _freeze(context: Context) -> Output:
    left_out: Counter[str] = Counter()
    rows = [r for b in context.store.batches(SELECTIONS) for r in _rows_of_batch(context, b, left_out)]
    if not rows:
        why = ", ".join(f"{n} x {reason}" for reason, n in left_out.most_common()) or "there are no clips"
        raise WorldError(f"the manifest would be empty ({why}); loosen the policy or look at `dailies report`")
    # where the root or the footage lies is not content: the digest leaves the source's folder out
    content = MANIFEST.from_rows([{**r, "manifest": "", "source": r["source"].rsplit("/", 1)[-1]} for r in rows])
    name = content_digest(content)
    table = MANIFEST.from_rows([{**r, "manifest": name} for r in rows])
    about = _about(table, left_out, name)
    _snapshot(context.store, table, name, about)
    return Output({MANIFEST.name: table}, metrics={"manifest": name, **_metrics(about)})


def _about(table: pa.Table, left_out: Counter[str], name: str) -> dict[str, Any]:
    rows = table.select(["width", "height", "start_s", "end_s", "policy", "caption_model"]).to_pylist()
    return {
        "digest": name,
        "schema": "manifest/v1",
        "rows": table.num_rows,
        "hours": sum(r["end_s"] - r["start_s"] for r in rows) / 3600,
        "aspect_ratios": dict(sorted(Counter(f"{r['width'] / r['height']:.2f}" for r in rows).items())),
        "policies": sorted({r["policy"] for r in rows}),
        "caption_models": sorted({r["caption_model"] for r in rows}),
        "left_out": dict(sorted(left_out.items())),
    }


def _metrics(about: dict[str, Any]) -> dict[str, Any]:
    return {
        "rows": about["rows"],
        "hours": round(about["hours"], 4),
        **{f"aspect_{k}": v for k, v in about["aspect_ratios"].items()},
        **{f"left_out: {k}": v for k, v in about["left_out"].items()},
    }


def _snapshot(store: Store, table: pa.Table, name: str, about: dict[str, Any]) -> None:
    if store.exists("manifests", name, SNAPSHOT):
        return  # immutable: the same digest is the same rows
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    store.write_bytes(sink.getvalue().to_pybytes(), "manifests", name, "part-00000.parquet")
    store.write_json(about, "manifests", name, SNAPSHOT)


def snapshots(store: Store) -> list[dict[str, Any]]:
    """Every frozen manifest's `_manifest.json`, in the digests' order."""
    found = store.fs.glob(store.at("manifests", "*", SNAPSHOT))
    return [store.read_json("manifests", p.split("/")[-2], SNAPSHOT) for p in sorted(found)]


MANIFEST_STAGE = Stage(
    name="manifest",
    version=1,
    reads=(SELECTIONS, CLIPS, VIDEOS, CLIP_FILES, CAPTIONS),
    optional=_SCORES,
    writes=(MANIFEST,),
    run=_freeze,
    settings=lambda config: config.manifest,
    doc="Kept clips with files and good captions, frozen under their digest.",
)
