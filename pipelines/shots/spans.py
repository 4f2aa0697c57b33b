"""Boundaries to shots, shots to clips: pure functions on frame indices and times.

A shot is a run of frames between two boundaries, without the frames of gradual transitions and without
damage.  A clip is a shot, or an even part of one that is longer than the limit.  Nothing is left out
here: a shot that is too short joins its neighbour, or becomes a clip as well and the policy says so; the frames
that are in no clip are those of the fades, dissolves and damage in table `boundaries`.
"""

import dataclasses
import itertools
import math

import numpy as np

from pipelines.shots.boundaries import NEAR, Times
from pipelines.shots.fades import Transition
from schemas.clips import Clip
from schemas.ids import clip_id, digest
from schemas.shots import Boundary, Shot

CUTTER_VERSION = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SpanConfig:
    """How shots become clips."""

    min_clip_s: float = 2.0
    """A shorter shot joins a neighbour where `join_below` allows it, s; else its clip is `too_short` for the policy."""
    max_clip_s: float = 20.0
    """A longer shot is split evenly, s."""
    join_below: float = 0.5
    """A short shot joins the neighbour from which a hard cut with less evidence than this parts it, [0, 1].

    At 0.5 nothing joins, because a cut has 0.5: a clip with a real cut inside is worse than a short clip.
    """

    def __post_init__(self) -> None:
        if not 0 <= self.min_clip_s <= self.max_clip_s or self.max_clip_s == 0:
            raise ValueError(
                f"spans: 0 <= min_clip_s <= max_clip_s, max_clip_s above 0, got {self.min_clip_s} and {self.max_clip_s}"
            )
        if not 0 <= self.join_below <= 1:
            raise ValueError(f"spans: join_below lies in [0, 1], got {self.join_below}")


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """Frames `[start, end)` and what they are bounded by."""

    start: int
    end: int
    cut_in: str
    cut_out: str


def shot_ranges(
    num_frames: int, cuts: list[int], transitions: list[Transition], damaged: np.ndarray | None = None
) -> list[Range]:
    """Runs of intact frames of one shot each, in order.

    A cut inside or within two frames of a transition is the transition's own edge, and is dropped.
    """
    kind = np.full(num_frames, "", dtype=object)
    for t in transitions:
        kind[t.start : t.end] = t.kind
    if damaged is not None:
        kind[damaged] = Boundary.DAMAGE.value
    near = {i for t in transitions for i in range(t.start - NEAR, t.end + NEAR + 1)}
    at = {c for c in cuts if c not in near and 0 < c < num_frames}
    found: list[Range] = []
    start = None
    for i in range(num_frames + 1):
        is_end = i == num_frames or kind[i] != ""
        if start is not None and (is_end or i in at):
            found.append(Range(start, i, _before(kind, start), _after(kind, i, num_frames)))
            start = None
        if not is_end and start is None:
            start = i
    return found


def _before(kind: np.ndarray, start: int) -> str:
    if start == 0:
        return Boundary.START.value
    return kind[start - 1] or Boundary.HARD.value


def _after(kind: np.ndarray, end: int, num_frames: int) -> str:
    if end == num_frames:
        return Boundary.END.value
    return kind[end] or Boundary.HARD.value


def make_shots(video_id: str, ranges: list[Range], times: Times) -> list[Shot]:
    """Rows of `shots`."""
    return [
        Shot(
            shot_id=digest("shot", video_id, times.at(r.start), times.at(r.end)),
            video_id=video_id,
            shot_index=index,
            start_pts=times.at(r.start),
            end_pts=times.at(r.end),
            start_frame=r.start,
            end_frame=r.end,
            start_s=times.seconds(r.start),
            end_s=times.seconds(r.end),
            cut_in=r.cut_in,
            cut_out=r.cut_out,
        )
        for index, r in enumerate(ranges)
    ]


def join_short(
    cuts: list[int], transitions: list[Transition], curve: np.ndarray, times: Times, config: SpanConfig
) -> list[int]:
    """Hard cuts without those that a short shot is joined over, the weakest first.

    Args:
        curve: Boundary evidence per frame.
    """
    kept = sorted(cuts)
    while True:
        ends = sorted({0, len(times.pts), *kept, *(f for t in transitions for f in (t.start, t.end))})
        lengths_s = {(a, b): times.seconds(b) - times.seconds(a) for a, b in itertools.pairwise(ends)}
        short = {edge for span, length_s in lengths_s.items() if length_s < config.min_clip_s for edge in span}
        weak = [(float(curve[c]), c) for c in kept if c in short and curve[c] < config.join_below]
        if not weak:
            return kept
        kept.remove(min(weak)[1])


def split_evenly(start: int, end: int, times: Times, max_clip_s: float) -> list[tuple[int, int]]:
    """Cut frames `[start, end)` in as few parts as the limit allows, of equal length in time."""
    begin, length = times.at(start), times.at(end) - times.at(start)
    parts = max(1, math.ceil(float(length * times.time_base) / max_clip_s - 1e-9))
    edges = [start]
    for part in range(1, parts):
        edge = start + int(np.searchsorted(times.pts[start:end], begin + length * part / parts))
        if edges[-1] < edge < end:
            edges.append(edge)
    return list(zip(edges, [*edges[1:], end]))


def make_clips(
    shot: Shot,
    times: Times,
    curve: np.ndarray,
    crop: list[int] | None,
    size: tuple[int, int],
    config: SpanConfig,
    made_by: str,
) -> list[Clip]:
    """Rows of `clips` of one shot.

    Args:
        curve: The video's boundary evidence, one entry per frame.
        crop: The shot's picture inside its bars, or None.
        size: The video's width and height as shown.
    """
    width, height = (crop[2], crop[3]) if crop else size
    made = []
    for start, end in split_evenly(shot.start_frame, shot.end_frame, times, config.max_clip_s):
        length_s = float((times.at(end) - times.at(start)) * times.time_base)
        inner = curve[start + 1 : end]
        made.append(
            Clip(
                clip_id=clip_id(shot.video_id, times.at(start), times.at(end), crop, CUTTER_VERSION),
                video_id=shot.video_id,
                shot_id=shot.shot_id,
                start_pts=times.at(start),
                end_pts=times.at(end),
                time_base_num=times.time_base.numerator,
                time_base_den=times.time_base.denominator,
                start_frame=start,
                end_frame=end,
                start_s=times.seconds(start),
                end_s=times.seconds(end),
                fps=round((end - start) / length_s, 6) if length_s > 0 else 0.0,
                crop=crop,
                width=width,
                height=height,
                max_inner_boundary=float(inner.max()) if len(inner) else 0.0,
                made_by=made_by,
            )
        )
    return made
