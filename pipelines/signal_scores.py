"""Stage `signal_scores`: run every scorer over every clip; one item per video, no decoding of video.

A scorer that raises on a clip leaves a row without numbers and with the error; the others go on.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.execute import Context, Failure, Output, Stage, Tables
from pipelines.scorers import SCORERS
from pipelines.scorers.base import Scorer, View
from schemas.clips import CLIPS, Clip
from schemas.ids import digest
from schemas.table import to_rows
from schemas.videos import FRAMES, SIGNALS, VIDEOS

_CURVES = ("luma", "contrast", "saturation", "sharpness", "difference")
_TABLES = tuple(s.table for s in SCORERS)


@dataclasses.dataclass(frozen=True, slots=True)
class _Item:
    """One video's clips with all that is known of them."""

    clips: tuple[Clip, ...]
    picture_size: tuple[int, int]
    curves: Mapping[str, np.ndarray]
    proxies: tuple[tuple[int, float, float, bytes], ...]
    """(frame index, time in s, blockiness, JPEG) in time order."""


def view_of(clip: Clip, item: _Item) -> View:
    """Slice the video's signals and proxies to one clip."""
    span = slice(clip.start_frame, clip.end_frame)
    curves = {n: item.curves[n][span] for n in _CURVES}
    curves["difference"] = curves["difference"].copy()
    curves["difference"][:1] = 0.0  # the change that leads into the clip is not the clip's
    inside = [p for p in item.proxies if clip.start_frame <= p[0] < clip.end_frame]
    return View(
        clip=clip,
        picture_size=item.picture_size,
        jpegs=tuple(p[3] for p in inside),
        times_s=tuple(p[1] - clip.start_s for p in inside),
        blockiness=tuple(p[2] for p in inside),
        **curves,
    )


def score_clip(scorer: Scorer, view: View, made_by: str) -> dict[str, Any]:
    """One row of the scorer's table; an exception becomes its `error`."""
    empty = dict.fromkeys(scorer.columns)
    try:
        values = dict(scorer.function(view))
        missing = [n for n in scorer.columns if values.get(n) is None]
        error = f"not measured: {', '.join(missing)} (proxies: {len(view.jpegs)})" if missing else ""
    except Exception as e:  # one scorer's trouble is a row, and not the others'
        values, error = {}, f"{type(e).__name__}: {e}"[:500]
    return {"clip_id": view.clip.clip_id, **empty, **values, "error": error, "made_by": made_by}


def _score_item(item: _Item, made_by: str) -> Tables:
    views = [view_of(c, item) for c in item.clips]
    rows = {s.name: [score_clip(s, v, made_by) for v in views] for s in SCORERS}
    return {t.name: t.from_rows(rows[s.name]) for s, t in zip(SCORERS, _TABLES)}


def _failed(item: _Item, failure: Failure, made_by: str) -> Tables:
    error = f"scoring ended with {failure}"
    return {
        t.name: t.from_rows(
            [{"clip_id": c.clip_id, **dict.fromkeys(s.columns), "error": error, "made_by": made_by} for c in item.clips]
        )
        for s, t in zip(SCORERS, _TABLES)
    }


def _items(context: Context) -> list[_Item]:
    videos = context.read(VIDEOS, ["video_id", "width", "height", "duplicate_of"]).to_pylist()
    sizes = {v["video_id"]: (v["width"], v["height"]) for v in videos if v["duplicate_of"] is None}
    clips: dict[str, list[Clip]] = {}
    for clip in to_rows(context.read(CLIPS), Clip):
        clips.setdefault(clip.video_id, []).append(clip)
    proxies: dict[str, list[tuple[int, float, float, bytes]]] = {}
    frames = context.read(FRAMES, ["video_id", "frame_index", "time_s", "blockiness", "jpeg"])
    for batch in frames.to_batches(max_chunksize=1000):
        for row in batch.to_pylist():
            found = (row["frame_index"], row["time_s"], row["blockiness"], row["jpeg"])
            proxies.setdefault(row["video_id"], []).append(found)
    signals = context.read(SIGNALS, ["video_id", *_CURVES])
    items = []
    for position, video_id in enumerate(signals["video_id"].to_pylist()):
        if video_id in clips:
            items.append(
                _Item(
                    tuple(sorted(clips[video_id], key=lambda c: c.start_frame)),
                    sizes[video_id],
                    {n: _array(signals, n, position) for n in _CURVES},
                    tuple(sorted(proxies.get(video_id, []))),
                )
            )
    return sorted(items, key=lambda i: i.clips[0].video_id)


def _array(signals: pa.Table, name: str, row: int) -> np.ndarray:
    return np.array(signals[name][row].values.to_numpy(zero_copy_only=False), np.float32)


def _signal_scores(context: Context) -> Output:
    tables = context.each(
        partial(_score_item, made_by=context.made_by),
        _items(context),
        key=digest,
        outputs=_TABLES,
        on_error=lambda item, failure: _failed(item, failure, context.made_by),
        unit="video",
    )
    errors = sum(bool(e) for t in tables.values() for e in t["error"].to_pylist())
    return Output(tables, metrics={"clips": tables[_TABLES[0].name].num_rows, "errors": errors, **_means(tables)})


def _means(tables: Mapping[str, pa.Table]) -> dict[str, float]:
    """Mean of every score, so that a drift between runs shows."""
    found = {}
    for scorer, table in zip(SCORERS, _TABLES):
        for name in scorer.columns:
            values = [v for v in tables[table.name][name].to_pylist() if v is not None]
            if values:
                found[f"mean_{scorer.name}.{name}"] = round(float(np.mean(values)), 5)
    return found


SIGNAL_SCORES_STAGE = Stage(
    name="signal_scores",
    version=4,  # new scorers, and strokes that are writing
    reads=(CLIPS, SIGNALS, FRAMES, VIDEOS),
    writes=_TABLES,
    run=_signal_scores,
    settings=lambda config: {s.name: s.version for s in SCORERS},
    doc="Classical scores from signals and proxies.",
)
