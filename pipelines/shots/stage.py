"""Stage `shots`: stored evidence to boundaries, shots and clips; nothing is decoded, one item per video.

A threshold under `curation.shots` moves in about the time that the tables take to read, and only the clips whose
span changed are new to the stages that follow, because a clip's id is made of its span.  Proxy frames are those
that the scan chose; a new clip shorter than their spacing may have none, and its scores say so.
"""

import dataclasses
from collections import Counter
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.contact_sheet import contact_sheet, evenly
from pipelines.execute import Context, Failure, Output, Stage, Tables
from pipelines.shots.boundaries import (
    BoundaryConfig,
    Evidence,
    Found,
    Times,
    as_evidence,
    boundary_rows,
    find_boundaries,
    inner_evidence,
)  # fmt: skip
from pipelines.shots.letterbox import LetterboxConfig, crop_box
from pipelines.shots.spans import SpanConfig, join_short, make_clips, make_shots, shot_ranges
from schemas.clips import CLIPS
from schemas.ids import digest
from schemas.shots import BOUNDARIES, SHOTS, Boundary
from schemas.videos import FRAMES, SIGNALS, VIDEOS

OUTPUTS = (SHOTS, CLIPS, BOUNDARIES)
_VIDEO = ["video_id", "path", "width", "height", "duplicate_of"]
_SIGNALS = ["video_id", "pts", "luma", "contrast", "boundary", "gradual", "flash", "damaged", "end_pts"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShotsConfig:
    """Evidence to clips."""

    boundaries: BoundaryConfig = BoundaryConfig()
    """How much evidence a boundary takes."""
    letterbox: LetterboxConfig = LetterboxConfig()
    """Black bars."""
    spans: SpanConfig = SpanConfig()
    """Shots to clips."""


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One video: its evidence, and the edges of its proxy frames."""

    video_id: str
    size: tuple[int, int]
    """Width and height as shown."""
    evidence: Evidence
    edges: tuple[tuple[int, tuple[int, ...]], ...]
    """(frame index, `frames.edges`)."""


def find_shots(item: Item, config: ShotsConfig, made_by: str) -> dict[str, pa.Table]:
    """All rows of one video."""
    evidence = item.evidence
    times = evidence.times
    found = find_boundaries(evidence, config.boundaries)
    cuts = join_short(found.cuts, found.transitions, evidence.boundary, times, config.spans)
    found = Found(cuts, found.transitions, found.flashes)
    ranges = shot_ranges(evidence.num_frames, found.cuts, found.transitions, evidence.damaged)
    shots = make_shots(item.video_id, ranges, times)
    curve = inner_evidence(evidence, found)
    clips = []
    for shot in shots:
        inside = [e for i, e in item.edges if shot.start_frame <= i < shot.end_frame and e]
        crop = crop_box(inside, *item.size, config.letterbox)
        clips += make_clips(shot, times, curve, crop, item.size, config.spans, made_by)
    boundaries = boundary_rows(item.video_id, evidence, found)
    return {
        SHOTS.name: SHOTS.from_rows(shots),
        CLIPS.name: CLIPS.from_rows(clips),
        BOUNDARIES.name: BOUNDARIES.from_rows(boundaries),
    }


def items(videos: pa.Table, signals: pa.Table, frames: pa.Table) -> list[Item]:
    """What the scan left of each video that has frames, in order of id."""
    sizes = {v["video_id"]: (v["width"], v["height"]) for v in videos.to_pylist() if v["duplicate_of"] is None}
    edges: dict[str, list[tuple[int, tuple[int, ...]]]] = {}
    for row in frames.select(["video_id", "frame_index", "edges"]).to_pylist():
        edges.setdefault(row["video_id"], []).append((row["frame_index"], tuple(row["edges"])))
    found = []
    for position, video_id in enumerate(signals["video_id"].to_pylist()):
        if video_id in sizes:
            evidence = _evidence(signals, position)
            found.append(Item(video_id, sizes[video_id], evidence, tuple(sorted(edges.get(video_id, [])))))
    return sorted(found, key=lambda i: i.video_id)


def _evidence(signals: pa.Table, row: int) -> Evidence:
    def curve(name: str) -> np.ndarray:
        return np.asarray(signals[name][row].values.to_numpy(zero_copy_only=False))

    base = Fraction(signals["time_base_num"][row].as_py(), signals["time_base_den"][row].as_py())
    return Evidence(
        times=Times(curve("pts"), signals["end_pts"][row].as_py(), base),
        luma=curve("luma"),
        contrast=curve("contrast"),
        boundary=as_evidence(curve("boundary")),
        gradual=as_evidence(curve("gradual")),
        flash=as_evidence(curve("flash")),
        damaged=curve("damaged").astype(bool),
    )


def _failed(item: Item, failure: Failure) -> Tables:
    """A video whose evidence cannot be read has one boundary: all of it is damage."""
    times = item.evidence.times
    row = {
        "video_id": item.video_id, "kind": Boundary.DAMAGE.value, "start_frame": 0,
        "end_frame": item.evidence.num_frames, "start_pts": times.at(0), "end_pts": times.end,
        "start_s": times.seconds(0), "end_s": times.seconds(len(times.pts)), "evidence": None,
        "reason": f"finding its shots ended with {failure}",
    }  # fmt: skip
    return {SHOTS.name: SHOTS.empty(), CLIPS.name: CLIPS.empty(), BOUNDARIES.name: BOUNDARIES.from_rows([row])}


def _shots(context: Context) -> Output:
    videos = context.read(VIDEOS, _VIDEO)
    signals = context.read(SIGNALS, [*_SIGNALS, "time_base_num", "time_base_den"])
    frames = context.read(FRAMES, ["video_id", "frame_index", "edges"])
    tables = context.each(
        partial(find_shots, config=context.settings, made_by=context.made_by),
        items(videos, signals, frames),
        key=digest,
        outputs=OUTPUTS,
        on_error=_failed,
        unit="video",
    )
    return Output(tables, metrics=_metrics(tables), pictures={"frames": _sheet(context, tables[CLIPS.name], videos)})


def _metrics(tables: dict[str, pa.Table]) -> dict[str, Any]:
    kinds = Counter(tables[BOUNDARIES.name]["kind"].to_pylist())
    return {
        "shots": tables[SHOTS.name].num_rows,
        "clips": tables[CLIPS.name].num_rows,
        **{f"boundaries_{name}": kinds.get(name, 0) for name in ("hard", "fade", "dissolve", "flash", "damage")},
    }


def _sheet(context: Context, clips: pa.Table, videos: pa.Table) -> bytes:
    """The middle proxy of each clip, in the order of the sources."""
    paths = {v["video_id"]: v["path"] for v in videos.to_pylist() if v["duplicate_of"] is None}
    table = context.read(FRAMES, ["video_id", "frame_index"])
    frames: dict[str, list[tuple[int, int]]] = {}
    for row, (video_id, index) in enumerate(zip(table["video_id"].to_pylist(), table["frame_index"].to_pylist())):
        frames.setdefault(video_id, []).append((index, row))
    shown = []
    for clip in clips.select(["video_id", "start_frame", "end_frame", "start_s"]).to_pylist():
        inside = [row for i, row in frames.get(clip["video_id"], []) if clip["start_frame"] <= i < clip["end_frame"]]
        if inside:
            label = f"{paths[clip['video_id']][-18:]} {clip['start_s']:.1f}s"
            shown.append((label, inside[len(inside) // 2]))
    shown.sort()
    picked = evenly(shown)
    jpegs = context.pictures(FRAMES, [row for _, row in picked])
    return contact_sheet([(jpeg, label) for jpeg, (label, _) in zip(jpegs, picked)])


SHOTS_STAGE = Stage(
    name="shots",
    version=2,
    reads=(VIDEOS, SIGNALS, FRAMES),
    writes=OUTPUTS,
    run=_shots,
    settings=lambda config: config.shots,
    doc="Decide on stored evidence where shots begin and end.",
)
