"""Stage `signal_scores`: run every scorer over every clip; no decoding of video.

An item is a few neighbouring clips of one video, put together when its turn comes: what travels to a worker, and what
is held beside the table of proxies, does not grow with a film's length.
A scorer that raises on a clip leaves a row without numbers and with the error; the others go on.
"""

import dataclasses
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, overload

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
_CLIPS_EACH = 32
"""Most clips of an item; at 20 s each their proxies take about 20 MB."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Item:
    """Neighbouring clips of one video with all that is known of them."""

    clips: tuple[Clip, ...]
    picture_size: tuple[int, int]
    first_frame: int
    """Where the curves begin."""
    curves: Mapping[str, np.ndarray]
    proxies: tuple[tuple[int, float, float, bytes], ...]
    """(frame index, time in s, blockiness, JPEG) in time order."""


def view_of(clip: Clip, item: _Item) -> View:
    """Slice the item's signals and proxies to one clip."""
    span = slice(clip.start_frame - item.first_frame, clip.end_frame - item.first_frame)
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


class _Items(Sequence[_Item]):
    """All clips of the batch, by video and in time order, as items that are made when they are asked for."""

    def __init__(self, context: Context) -> None:
        videos = context.read(VIDEOS, ["video_id", "width", "height", "duplicate_of"]).to_pylist()
        self._sizes = {v["video_id"]: (v["width"], v["height"]) for v in videos if v["duplicate_of"] is None}
        self._signals = context.read(SIGNALS, ["video_id", *_CURVES])
        self._row_of = {video: row for row, video in enumerate(self._signals["video_id"].to_pylist())}
        self._frames = context.read(FRAMES, ["time_s", "blockiness", "jpeg"])
        self._proxies: dict[str, list[tuple[int, int]]] = {}
        names = context.read(FRAMES, ["video_id", "frame_index"])
        for row, (video, index) in enumerate(zip(names["video_id"].to_pylist(), names["frame_index"].to_pylist())):
            self._proxies.setdefault(video, []).append((index, row))
        clips: dict[str, list[Clip]] = {}
        for clip in to_rows(context.read(CLIPS), Clip):
            if clip.video_id in self._row_of:
                clips.setdefault(clip.video_id, []).append(clip)
        self._groups: list[tuple[Clip, ...]] = []
        for video in sorted(clips):
            some = sorted(clips[video], key=lambda c: (c.start_frame, c.clip_id))
            self._groups += [tuple(some[i : i + _CLIPS_EACH]) for i in range(0, len(some), _CLIPS_EACH)]
            self._proxies.setdefault(video, []).sort()

    def __len__(self) -> int:
        return len(self._groups)

    @overload
    def __getitem__(self, at: int) -> _Item: ...
    @overload
    def __getitem__(self, at: slice) -> list[_Item]: ...
    def __getitem__(self, at: int | slice) -> _Item | list[_Item]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        clips = self._groups[at]
        video, start, end = clips[0].video_id, clips[0].start_frame, max(c.end_frame for c in clips)
        proxies, frames = self._proxies[video], self._frames
        inside = proxies[bisect_left(proxies, (start, -1)) : bisect_left(proxies, (end, -1))]
        return _Item(
            clips,
            self._sizes[video],
            start,
            {n: _array(self._signals, n, self._row_of[video])[start:end] for n in _CURVES},
            tuple((i, *(frames[c][row].as_py() for c in ("time_s", "blockiness", "jpeg"))) for i, row in inside),
        )


def _array(signals: pa.Table, name: str, row: int) -> np.ndarray:
    return np.array(signals[name][row].values.to_numpy(zero_copy_only=False), np.float32)


def _signal_scores(context: Context) -> Output:
    tables = context.each(
        partial(_score_item, made_by=context.made_by),
        _Items(context),
        key=digest,
        outputs=_TABLES,
        on_error=lambda item, failure: _failed(item, failure, context.made_by),
        unit="group",
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
