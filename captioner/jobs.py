"""Which clips are captioned, from which frames, and which of them together.

Every clip that the policy kept becomes a job with the frames that the specification names; a clip without a usable
frame comes back with the reason.  Chunks have one frame shape and follow from the sorted clip ids, so that they do not
depend on how many workers there are.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from captioner.describe import Job
from captioner.frames import FrameSpec, crop_box, moments, size_for
from pipelines.execute import Context
from schemas.clips import CLIPS
from schemas.verdicts import SELECTIONS, Verdict
from schemas.videos import FRAMES, VIDEOS


def look(context: Context, spec: FrameSpec, *, more: bool = False) -> tuple[list[Job], dict[str, str]]:
    """Choose the frames of every kept clip; those that have none come back with the reason.

    Args:
        more: Twice the frames too, for retries.
    """
    selected = context.read(SELECTIONS, columns=["clip_id", "verdict"]).to_pylist()
    kept = {row["clip_id"] for row in selected if row["verdict"] == Verdict.KEEP}
    clips = [c for c in context.read(CLIPS).to_pylist() if c["clip_id"] in kept]
    failed = dict.fromkeys(kept - {c["clip_id"] for c in clips}, "selected, but not in table `clips`")
    videos = context.read(VIDEOS, columns=["video_id", "width", "height"]).to_pylist()
    shown = {v["video_id"]: (v["width"], v["height"]) for v in videos}
    wanted = pa.array(sorted({c["video_id"] for c in clips}), pa.string())
    frames = context.read(FRAMES)
    proxies: dict[str, list[dict[str, Any]]] = {}
    for frame in frames.filter(pa.compute.is_in(frames["video_id"], wanted)).to_pylist():
        proxies.setdefault(frame["video_id"], []).append(frame)
    jobs = []
    for clip in clips:
        try:
            jobs.append(job_of(clip, proxies.get(clip["video_id"], []), shown.get(clip["video_id"]), spec, more=more))
        except ValueError as e:
            failed[clip["clip_id"]] = str(e)
    return jobs, failed


def job_of(
    clip: dict[str, Any],
    proxies: Sequence[dict[str, Any]],
    shown: tuple[int, int] | None,
    spec: FrameSpec,
    *,
    more: bool = False,
) -> Job:
    """One clip's frames, by the specification.

    Raises:
        ValueError: If no proxy frame lies in the clip.
    """
    inside = sorted(
        (p for p in proxies if clip["start_frame"] <= p["frame_index"] < clip["end_frame"]),
        key=lambda p: p["frame_index"],
    )
    times_s = [p["time_s"] for p in inside]
    places = moments(times_s, clip["start_s"], clip["end_s"], spec.num_frames)
    twice = moments(times_s, clip["start_s"], clip["end_s"], min(256, 2 * spec.num_frames)) if more else places
    chosen = [inside[i] for i in places]
    others = [inside[i] for i in twice] if set(twice) != set(places) else []
    proxy = (chosen[0]["width"], chosen[0]["height"])
    return Job(
        clip_id=clip["clip_id"],
        jpegs=tuple(p["jpeg"] for p in chosen),
        frame_indices=tuple(p["frame_index"] for p in chosen),
        times_s=tuple(round(p["time_s"] - clip["start_s"], 6) for p in chosen),
        box=crop_box(clip["crop"], shown, proxy) if shown else None,
        size=size_for(*_seen_size(clip["crop"], shown, proxy), spec),
        more_jpegs=tuple(p["jpeg"] for p in others),
        more_times_s=tuple(round(p["time_s"] - clip["start_s"], 6) for p in others),
    )


def _seen_size(crop: Sequence[int] | None, shown: tuple[int, int] | None, proxy: tuple[int, int]) -> tuple[int, int]:
    box = crop_box(crop, shown, proxy) if shown else None
    if box is None:
        return proxy
    return max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1]))


def chunked(jobs: Sequence[Job], size: int) -> list[tuple[Job, ...]]:
    """Chunks of at most `size` clips of one shape, the same for any number of workers."""
    ordered = sorted(jobs, key=lambda j: (j.size, j.clip_id))
    groups = [tuple(group) for _, group in itertools.groupby(ordered, key=lambda j: j.size)]
    return [group[start : start + size] for group in groups for start in range(0, len(group), size)]
