"""Stage `clip_files`: encode what was kept, and nothing else.

Peers encode every clip before they filter; at a keep rate of 27 % that is most of the work thrown away.
A file is named by its clip (`blobs/clips/<id[:2]>/<id>.mp4`), so one that is there is used again.
"""

import dataclasses
import os
import shutil
from collections import Counter
from functools import partial
from typing import Any

from pipelines.contact_sheet import contact_sheet
from pipelines.dedup.stage import jpegs_by_clip
from pipelines.execute import Context, Failure, Output, Stage, Tables
from pipelines.video.cut import CutConfig, CutFailed, count_frames, cut
from pipelines.video.probe import GRACE_S, ProbeConfig, check_same
from pipelines.video.source import state
from schemas.clips import CLIP_FILES, CLIPS, Clip, ClipFile
from schemas.ids import digest
from schemas.store import Store
from schemas.table import to_rows
from schemas.verdicts import SELECTIONS, Verdict
from schemas.videos import FRAMES, VIDEOS, Video

_Item = tuple[Clip, Video]


def blob_path(clip_id: str, config: CutConfig) -> tuple[str, ...]:
    """Where a clip's file lies, as parts under the root; other encoder settings give another name."""
    suffix = "" if config == CutConfig(deadline_s=config.deadline_s) else f"-{digest(config.crf, config.preset)[:8]}"
    return ("blobs", "clips", clip_id[:2], f"{clip_id}{suffix}.mp4")


def _cut_item(item: _Item, root: str, config: CutConfig, limits: ProbeConfig, made_by: str) -> Tables:
    clip, video = item
    store, parts = Store(root), blob_path(clip.clip_id, config)
    expected = clip.end_frame - clip.start_frame
    if store.exists(*parts):
        try:
            if count_frames(store.fetch(*parts)).num_frames == expected:
                return {CLIP_FILES.name: CLIP_FILES.from_rows([_row(store, clip, parts, made_by)])}
        except (OSError, ValueError):
            pass  # a file that does not read is cut again
    folder = store.scratch()
    try:
        local = os.path.join(folder, "clip.mp4")
        before = state(video.folder, video.path)
        cut(video, clip, local, config, limits)
        check_same(video, before, limits)
        store.publish(local, *parts)
        return {CLIP_FILES.name: CLIP_FILES.from_rows([_row(store, clip, parts, made_by)])}
    except CutFailed as e:
        return {CLIP_FILES.name: CLIP_FILES.from_rows([_failed_row(clip, str(e), made_by)])}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _row(store: Store, clip: Clip, parts: tuple[str, ...], made_by: str) -> ClipFile:
    local = store.fetch(*parts)
    made = count_frames(local)
    return ClipFile(
        clip_id=clip.clip_id,
        path="/".join(parts),
        status="ok",
        width=made.width,
        height=made.height,
        fps=made.fps,
        num_frames=made.num_frames,
        duration_s=made.duration_s,
        size_bytes=os.path.getsize(local),
        made_by=made_by,
    )


def _failed_row(clip: Clip, reason: str, made_by: str) -> ClipFile:
    return ClipFile(
        clip_id=clip.clip_id,
        path="",
        status="failed",
        reason=reason,
        width=0,
        height=0,
        fps=0.0,
        num_frames=0,
        duration_s=0.0,
        size_bytes=0,
        made_by=made_by,
    )


def _failed(item: _Item, failure: Failure, made_by: str) -> Tables:
    return {CLIP_FILES.name: CLIP_FILES.from_rows([_failed_row(item[0], f"cutting ended with {failure}", made_by)])}


def _clip_files(context: Context) -> Output:
    config: CutConfig
    config, limits = context.settings
    selections = context.read(SELECTIONS, ["clip_id", "verdict"]).to_pylist()
    kept = {s["clip_id"] for s in selections if s["verdict"] == Verdict.KEEP}
    videos = {v.video_id: v for v in to_rows(context.read(VIDEOS), Video) if v.duplicate_of is None}
    clips = [c for c in to_rows(context.read(CLIPS), Clip) if c.clip_id in kept]
    clips.sort(key=lambda c: (c.video_id, c.start_frame))
    tables = context.each(
        partial(_cut_item, root=context.store.root, config=config, limits=limits, made_by=context.made_by),
        [(c, videos[c.video_id]) for c in clips],
        key=lambda item: digest(item[0].clip_id, dataclasses.asdict(item[0]), item[1].folder, item[1].path),
        outputs=(CLIP_FILES,),
        on_error=lambda item, failure: _failed(item, failure, context.made_by),
        unit="clip",
        label=lambda item: item[0].clip_id,
        deadline=lambda item: 3 * config.deadline_s + GRACE_S,
    )
    rows = tables[CLIP_FILES.name].to_pylist()
    jpegs = jpegs_by_clip(context.read(FRAMES, ["video_id", "frame_index", "jpeg"]), clips, 1)
    pictured = [r for r in rows if r["path"] and jpegs[r["clip_id"]]]  # a clip between two proxies has no picture
    shown = [(jpegs[r["clip_id"]][0], f"{r['width']}x{r['height']} {r['duration_s']:.1f}s") for r in pictured]
    return Output(tables, metrics=_metrics(rows), pictures={"clips": contact_sheet(shown)})


def _metrics(rows: list[dict[str, Any]]) -> dict[str, Any]:
    status = Counter(r["status"] for r in rows)
    seconds = sum(r["duration_s"] for r in rows)
    return {
        "clips_ok": status.get("ok", 0),
        "clips_failed": status.get("failed", 0),
        "hours": round(seconds / 3600, 5),
        "megabytes": round(sum(r["size_bytes"] for r in rows) / 1e6, 2),
    }


CLIP_FILES_STAGE = Stage(
    name="clip_files",
    version=3,
    reads=(SELECTIONS, CLIPS, VIDEOS, FRAMES),
    writes=(CLIP_FILES,),
    run=_clip_files,
    settings=lambda config: (config.cut, config.probe),
    doc="Encode the clips that were kept.",
)
