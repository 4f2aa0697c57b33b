"""Stage `scan`: the one decode pass over every unique source of a batch, one item per video or per part of a long one.

Parts are joined here, in the driver: some seconds for a two-hour film.  A video whose parts cannot be joined is
decoded once more in one go, and its `decode_passes` is 2.
"""

import dataclasses
import itertools
import sys
from collections import Counter
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.execute import Context, Failure, Output, Stage, Tables
from pipelines.scan.parts import SCAN_PARTS, CannotJoin, join, plan, scan_part, unfit_part
from pipelines.scan.scan import OUTPUTS, ScanConfig, failed_scan, scan, scanning_s
from pipelines.video.decode_part import Part
from pipelines.video.probe import GRACE_S, check_same
from pipelines.video.source import state
from schemas.ids import digest
from schemas.table import to_rows
from schemas.videos import FRAMES, SCANS, SIGNALS, VIDEOS, Video, VideoStatus


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """A video, or a part of a long one."""

    video: Video
    part: Part | None = None


def _scan_item(work: Work, config: ScanConfig) -> Tables:
    before = state(work.video.folder, work.video.path)
    if work.part is not None:
        tables = scan_part(work.video, work.part, config)
    else:
        tables = {**scan(work.video, config), SCAN_PARTS.name: SCAN_PARTS.empty()}
    check_same(work.video, before, config.limits)
    return tables


def _label(work: Work) -> str:
    """The file's name, and which part of it."""
    return work.video.path if work.part is None else f"{work.video.path}#{work.part.index}"


def _limit_s(work: Work, config: ScanConfig) -> float:
    return scanning_s(work.video, config) if work.part is None else config.deadline_s


def _failed(work: Work, failure: Failure) -> Tables:
    reason = f"scanning it ended with {failure}"
    if work.part is not None:
        return unfit_part(work.video, work.part, reason)
    return {**failed_scan(work.video, reason), SCAN_PARTS.name: SCAN_PARTS.empty()}


def _key(work: Work) -> str:
    """By content: the same packets shown the same way give the same rows, wherever the file lies."""
    video = work.video
    shape = (video.width, video.height, video.rotation, video.time_base_num, video.time_base_den, video.is_image)
    name = (video.video_id, shape, video.status, video.reason)
    return digest(*name) if work.part is None else digest(*name, work.part)


def _scan(context: Context) -> Output:
    config: ScanConfig = context.settings
    videos = [v for v in to_rows(context.read(VIDEOS), Video) if v.duplicate_of is None]
    tables = _each(context, [Work(v, p) for v in videos for p in plan(v, config)])
    joined, again = _joined(tables, {v.video_id: v for v in videos}, config)
    del tables  # the candidates that were not chosen
    if again:
        repeated = _each(context, [Work(v) for v in again])
        twice = pa.array([2 if n else 0 for n in repeated[SCANS.name]["num_frames"].to_pylist()], pa.int64())
        at = repeated[SCANS.name].schema.get_field_index("decode_passes")
        repeated[SCANS.name] = repeated[SCANS.name].set_column(at, SCANS.schema.field(at), twice)
        joined.append(repeated)
    made = {t.name: pa.concat_tables([j[t.name] for j in joined]) for t in OUTPUTS}
    return Output(made, metrics=_metrics(made))


def _each(context: Context, work: list[Work]) -> dict[str, pa.Table]:
    return context.each(
        partial(_scan_item, config=context.settings),
        work,
        key=_key,
        outputs=(*OUTPUTS, SCAN_PARTS),
        on_error=_failed,
        unit="part" if any(w.part for w in work) else "video",
        label=_label,
        deadline=lambda w: 1.5 * _limit_s(w, context.settings) + GRACE_S,
    )


def _joined(
    tables: dict[str, pa.Table], videos: dict[str, Video], config: ScanConfig
) -> tuple[list[dict[str, pa.Table]], list[Video]]:
    """Rows of whole videos and of joined ones, and the videos that must be decoded in one go."""
    parts, frames = tables[SCAN_PARTS.name], tables[FRAMES.name]
    in_parts = set(parts["video_id"].to_pylist())
    runs = _runs(frames)
    whole = [frames.slice(start, length) for video_id, start, length in runs if video_id not in in_parts]
    found = [{t.name: tables[t.name] for t in (SCANS, SIGNALS)} | {FRAMES.name: _one(whole)}]
    again = []
    for video_id in sorted(in_parts):
        mine = pa.concat_tables(
            [parts.slice(start, length) for name, start, length in _runs(parts) if name == video_id]
        )
        kept = [frames.slice(start, length) for name, start, length in runs if name == video_id]
        try:
            found.append(join(videos[video_id], mine, _one(kept), config))
        except (CannotJoin, ArithmeticError, LookupError, ValueError) as e:
            print(f"scan: {videos[video_id].path} is decoded in one go: {e}", file=sys.stderr, flush=True)
            again.append(videos[video_id])
    return found, again


def _one(pieces: list[pa.Table]) -> pa.Table:
    return pa.concat_tables([FRAMES.empty(), *pieces])


def _runs(table: pa.Table) -> list[tuple[str, int, int]]:
    """(video, first row, rows) of neighbouring rows of one video: slices copy no picture."""
    found, start = [], 0
    for video_id, rows in itertools.groupby(table["video_id"].to_pylist()):
        length = sum(1 for _ in rows)
        found.append((video_id, start, length))
        start += length
    return found


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
    version=10,
    reads=(VIDEOS,),
    writes=(SCANS, SIGNALS, FRAMES),
    run=_scan,
    settings=lambda config: config.scan,
    doc="Decode each source once: signals, boundary evidence, proxy frames.",
)
