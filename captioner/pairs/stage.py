"""Stage `pairs`: what the captioner learns from, whatever it came from, in one table with a source column.

Rendered pairs as they are; rows of checked pair files (`listing.py`) with the frames they name.  A video is opened and
decoded by the same layer as footage, turned, un-squeezed and tone-mapped like it, and kept as proxies of the scan's
size; training then picks and sizes frames by the one `FrameSpec`.  A row whose clip does not decode goes to table
`pairs_left_out` with column and reason.  Cost: decoding each clip once up to its end, from the key frame before it.
"""

import functools
import os
import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from captioner.pairs.config import PairSources
from captioner.pairs.listing import read_list
from captioner.pairs.read import Wrong
from pipelines.execute import Context, Failure, Output, Stage, Tables
from pipelines.video.decode import Pass, decode_frames
from pipelines.video.frames import ProxyMaker, proxy_size
from pipelines.video.probe import GRACE_S, probe, reading_s
from schemas.captions import PAIRS, PAIRS_LEFT_OUT, SYNTHETIC_PAIRS, LeftOut, Pair
from schemas.errors import MissingTable, UsageError
from schemas.ids import digest

_EDGE_S = 1e-6  # float noise of a time that was written as decimal


def run(context: Context) -> Output:
    """Bring all pairs together."""
    config: PairSources = context.settings
    rows = [row for name in config.lists for row in read_list(context.store, name)]
    ready = [make_pair(row, config=config) for row in rows if row["frames"] or row["reason"]]
    made = context.each(
        functools.partial(make_pair, config=config),
        [row for row in rows if not row["frames"] and not row["reason"]],
        key=digest,
        outputs=(PAIRS, PAIRS_LEFT_OUT),
        on_error=_failed,
        unit="pair",
        label=lambda row: f"{row['file']}:{row['row']}",
        deadline=lambda row: config.deadline_s + reading_s(config.limits, _size(row["video"])) + GRACE_S,
    )
    listed, left_out = (
        _distinct(pa.concat_tables([*(r[table.name] for r in ready), made[table.name]]), table.key)
        for table in (PAIRS, PAIRS_LEFT_OUT)
    )
    if rows and not listed.num_rows:
        first = left_out.to_pylist()[0]
        raise UsageError(
            f"none of {len(rows)} listed pairs can be used; the first: {first['file']} row {first['row']}, column "
            f"`{first['column_name']}`: {first['reason']}"
        )
    table = PAIRS.sorted(pa.concat_tables([*_rendered(context, config), listed]))
    metrics: dict[str, Any] = {f"pairs_{split}": n for split, n in Counter(table["split"].to_pylist()).items()}
    metrics |= {f"from {source}": n for source, n in sorted(Counter(table["source"].to_pylist()).items())}
    if rows:
        metrics["left_out"] = left_out.num_rows
    return Output(tables={PAIRS.name: table, PAIRS_LEFT_OUT.name: left_out}, metrics=metrics)


def _rendered(context: Context, config: PairSources) -> list[pa.Table]:
    if not config.synthetic:
        return []
    table = context.read_optional(SYNTHETIC_PAIRS)
    if table is None:
        raise MissingTable(
            f"table `{SYNTHETIC_PAIRS.name}` was never made under {context.store.root}: run stage `synthetic_pairs` "
            "first, or learn from a file alone with `--set captioner.pairs.synthetic=no`"
        )
    return [table]


def _distinct(table: pa.Table, key: Sequence[str]) -> pa.Table:
    """Without what two files hold alike; the first stays."""
    first = {tuple(row.values()): place for place, row in reversed(list(enumerate(table.select(key).to_pylist())))}
    return table.take(pa.array(sorted(first.values()), pa.int64()))


def make_pair(row: Mapping[str, Any], *, config: PairSources) -> Tables:
    """One listed row as a pair, or as a row that is left out."""
    if row["reason"]:
        return _left_out(row, row["column_name"], row["reason"])
    try:
        seen = dict(row) if row["frames"] else decoded(row["video"], row["start_s"], row["end_s"], config)
    except Wrong as e:
        return _left_out(row, e.column, e.reason)
    pair = Pair(
        pair_id=digest("pair", row["video"], row["clip_id"], row["start_s"], row["end_s"], row["short"], row["dense"]),
        split=row["split"],
        frames=seen["frames"],
        times_s=[round(t, 6) for t in seen["times_s"]],
        width=seen["width"],
        height=seen["height"],
        short=row["short"],
        dense=row["dense"],
        fields=row["fields"],
        source=row["source"],
        writer=row["writer"],
        clip_id=row["clip_id"],
        length_s=None if seen["end_s"] is None else round(seen["end_s"] - row["start_s"], 6),
        box=seen["box"],
    )
    return {PAIRS.name: PAIRS.from_rows([pair]), PAIRS_LEFT_OUT.name: PAIRS_LEFT_OUT.empty()}


def decoded(video: str, start_s: float, end_s: float | None, config: PairSources) -> dict[str, Any]:
    """Proxies of a span of a video file, evenly over it.

    Args:
        start_s: Presentation time at which the clip begins, as players and table `clips` count it.

    Raises:
        Wrong: If there is nothing to see in it; says whether the video or the times are at fault.
    """
    folder, path = posixpath.split(video)
    found = probe(folder, path, _size(video), config.limits)
    if found.status not in ("ok", "damaged"):
        raise Wrong("video", f"{video}: {found.status}: {found.reason}")
    if end_s is None:
        end_s = max(found.duration_s, start_s)  # a still picture has no length, and one frame
    size = proxy_size(found.width, found.height, config.short_side, config.area)
    maker = ProxyMaker(size, found.rotation, config.quality)
    step_s = (end_s - start_s) / config.num_frames
    outcome = Pass()
    jpegs: list[bytes] = []
    times: list[float] = []
    from_pts = None
    if start_s > 0 and found.time_base_num:
        from_pts = int(start_s * found.time_base_den / found.time_base_num)
    for frame in decode_frames(folder, path, config.limits, config.deadline_s, outcome, from_pts=from_pts):
        time_s = float(frame.pts * outcome.time_base)
        if time_s < start_s - _EDGE_S:
            continue
        if time_s >= end_s - _EDGE_S and jpegs:
            break
        if time_s >= end_s + _EDGE_S and not found.is_image:
            break
        if not frame.is_damaged and time_s >= start_s + len(jpegs) * step_s - _EDGE_S:
            jpegs.append(maker.jpeg(frame.picture))
            times.append(max(0.0, time_s - start_s))
    if outcome.stopped and not jpegs:
        raise Wrong("video", f"{video} does not decode: {outcome.stopped}")
    if not jpegs:
        whole = f"; the video ends at {found.duration_s:.2f} s" if found.duration_s else ""
        raise Wrong("start", f"no intact frame of {video} from {start_s:g} s to {end_s:g} s{whole}")
    length = end_s if end_s > start_s else None
    return {"frames": jpegs, "times_s": times, "width": size[0], "height": size[1], "box": None, "end_s": length}


def _size(video: str) -> int:
    return os.path.getsize(video) if video and os.path.isfile(video) else 0


def _left_out(row: Mapping[str, Any], column: str, reason: str) -> Tables:
    said = LeftOut(file=row["file"], row=row["row"], column_name=column, reason=reason)
    return {PAIRS.name: PAIRS.empty(), PAIRS_LEFT_OUT.name: PAIRS_LEFT_OUT.from_rows([said])}


def _failed(row: Mapping[str, Any], failure: Failure) -> Tables:
    return _left_out(row, "video", str(failure))


PAIRS_STAGE = Stage(
    name="pairs",
    version=1,
    reads=(),
    writes=(PAIRS, PAIRS_LEFT_OUT),
    run=run,
    settings=lambda config: config.pairs,
    optional=(SYNTHETIC_PAIRS,),
    doc="All (clip, captions) pairs the captioner learns from: rendered, from files, from labels, from a teacher.",
)
