"""Stage `scan`: the one decode pass over every unique source of a batch, one item per video."""

from collections import Counter
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.execute import Context, Failure, Output, Stage, Tables
from pipelines.scan import OUTPUTS, ScanConfig, failed_scan, scan
from schemas.ids import digest
from schemas.table import to_rows
from schemas.videos import FRAMES, SCANS, SIGNALS, VIDEOS, Video, VideoStatus


def _scan_item(video: Video, config: ScanConfig) -> Tables:
    return scan(video, config)


def _failed(video: Video, failure: Failure) -> Tables:
    return failed_scan(video, f"scanning it ended with {failure}")


def _key(video: Video) -> str:
    """By content: the same packets shown the same way give the same rows, wherever the file lies."""
    shape = (video.width, video.height, video.rotation, video.time_base_num, video.time_base_den, video.is_image)
    return digest(video.video_id, shape, video.status, video.reason)


def _scan(context: Context) -> Output:
    videos = [v for v in to_rows(context.read(VIDEOS), Video) if v.duplicate_of is None]
    tables = context.each(
        partial(_scan_item, config=context.settings),
        videos,
        key=_key,
        outputs=OUTPUTS,
        on_error=_failed,
        unit="video",
    )
    return Output(tables, metrics=_metrics(tables))


def _metrics(tables: dict[str, pa.Table]) -> dict[str, Any]:
    scans, signals = tables[SCANS.name], tables[SIGNALS.name]
    status = Counter(scans["status"].to_pylist())
    passes = [p for p, n in zip(scans["decode_passes"].to_pylist(), scans["num_frames"].to_pylist()) if n]
    return {
        **{f"scans_{name}": status.get(name, 0) for name in VideoStatus},
        "frames": sum(scans["num_frames"].to_pylist()),
        "decode_passes_per_source": max(passes, default=0),
        "proxies": tables[FRAMES.name].num_rows,
        "boundary_curves_kb_per_s": curves_kb_per_s(signals),
    }


def curves_kb_per_s(signals: pa.Table) -> float:
    """What the stored boundary curves take per second of video, as they lie in Parquet."""
    seconds = sum(
        (row["end_pts"] - row["pts"][0]) * row["time_base_num"] / row["time_base_den"]
        for row in signals.select(["pts", "end_pts", "time_base_num", "time_base_den"]).to_pylist()
        if row["pts"]
    )
    sink = pa.BufferOutputStream()
    pq.write_table(signals.select(["boundary", "gradual", "flash"]), sink, compression="zstd")
    return round(sink.getvalue().size / 1000 / seconds, 3) if seconds > 0 else 0.0


SCAN_STAGE = Stage(
    name="scan",
    version=4,
    reads=(VIDEOS,),
    writes=(SCANS, SIGNALS, FRAMES),
    run=_scan,
    settings=lambda config: config.scan,
    doc="Decode each source once: signals, boundary evidence, proxy frames.",
)
