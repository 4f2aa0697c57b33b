"""Stage `scan`: the one decode pass over every unique source of a batch, one item per video."""

from collections import Counter
from functools import partial
from typing import Any

import pyarrow as pa

from pipelines.contact_sheet import contact_sheet
from pipelines.execute import Context, Failure, Output, Stage, Tables
from pipelines.scan import OUTPUTS, ScanConfig, failed_scan, scan
from schemas.clips import CLIPS
from schemas.ids import digest
from schemas.shots import SHOTS
from schemas.table import to_rows
from schemas.videos import FRAMES, SCANS, SIGNALS, VIDEOS, Video, VideoStatus


def _scan_item(video: Video, config: ScanConfig, made_by: str) -> Tables:
    return scan(video, config, made_by)


def _failed(video: Video, failure: Failure) -> Tables:
    return failed_scan(video, f"scanning it ended with {failure}")


def _key(video: Video) -> str:
    """By content: the same packets shown the same way give the same rows, wherever the file lies."""
    shape = (video.width, video.height, video.rotation, video.time_base_num, video.time_base_den, video.is_image)
    return digest(video.video_id, shape, video.status, video.reason)


def _scan(context: Context) -> Output:
    videos = [v for v in to_rows(context.read(VIDEOS), Video) if v.duplicate_of is None]
    tables = context.each(
        partial(_scan_item, config=context.settings, made_by=context.made_by),
        videos,
        key=_key,
        outputs=OUTPUTS,
        on_error=_failed,
        unit="video",
    )
    return Output(tables, metrics=_metrics(tables), pictures={"frames": _sheet(tables, videos)})


def _metrics(tables: dict[str, pa.Table]) -> dict[str, Any]:
    scans = tables[SCANS.name]
    status = Counter(scans["status"].to_pylist())
    passes = [p for p, n in zip(scans["decode_passes"].to_pylist(), scans["num_frames"].to_pylist()) if n]
    cuts = Counter(tables[SHOTS.name]["cut_in"].to_pylist())
    return {
        **{f"scans_{name}": status.get(name, 0) for name in VideoStatus},
        "frames": sum(scans["num_frames"].to_pylist()),
        "decode_passes_per_source": max(passes, default=0),
        "shots": tables[SHOTS.name].num_rows,
        "clips": tables[CLIPS.name].num_rows,
        "proxies": tables[FRAMES.name].num_rows,
        **{f"boundaries_{name}": cuts.get(name, 0) for name in ("hard", "fade", "dissolve", "damage")},
    }


def _sheet(tables: dict[str, pa.Table], videos: list[Video]) -> bytes:
    """The middle proxy of each clip, in the order of the sources."""
    paths = {v.video_id: v.path for v in videos}
    frames: dict[str, list[tuple[int, int]]] = {}
    ids, indices = tables[FRAMES.name]["video_id"].to_pylist(), tables[FRAMES.name]["frame_index"].to_pylist()
    for row, (video_id, index) in enumerate(zip(ids, indices)):
        frames.setdefault(video_id, []).append((index, row))
    shown = []
    for clip in tables[CLIPS.name].select(["video_id", "start_frame", "end_frame", "start_s"]).to_pylist():
        inside = [row for i, row in frames.get(clip["video_id"], []) if clip["start_frame"] <= i < clip["end_frame"]]
        if inside:
            label = f"{paths[clip['video_id']][-18:]} {clip['start_s']:.1f}s"
            shown.append((label, inside[len(inside) // 2]))
    shown.sort()
    step = max(1.0, len(shown) / 36)
    picked = [shown[int(i * step)] for i in range(min(36, len(shown)))]
    jpegs = tables[FRAMES.name]["jpeg"]
    return contact_sheet([(jpegs[row].as_py(), label) for label, row in picked])


SCAN_STAGE = Stage(
    name="scan",
    version=2,
    reads=(VIDEOS,),
    writes=(SCANS, SHOTS, CLIPS, SIGNALS, FRAMES),
    run=_scan,
    settings=lambda config: config.scan,
    doc="Decode each source once: signals, shots, clips, proxy frames.",
)
