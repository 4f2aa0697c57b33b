"""Stage `fingerprints`: what a clip looks like, small enough to compare it with every other clip there is.

A fingerprint is a row of tiny colour pictures of the clip's proxies, all of a clip of up to 12 s, cropped as the clip
is, so that a letterboxed copy has the same one.  Sequence and times are kept, because two cuts of the same
shot seldom begin at the same frame.  Cost: one resize per proxy; 7 kB for a clip of 4 s.
"""

import dataclasses
from functools import partial

import numpy as np

from pipelines.execute import Context, Failure, Output, Stage, Tables
from pipelines.scorers.base import cropped
from pipelines.video.frames import nearest_indices, read_jpeg
from schemas.clips import CLIPS, Clip
from schemas.ids import digest
from schemas.scores import FINGERPRINTS, Fingerprint
from schemas.table import to_rows
from schemas.videos import FRAMES, VIDEOS

GRID = 12
"""Side of a tiny picture, pixel."""
_STEP_S = 0.25
_FEWEST, _MOST = 3, 48
VALUES = GRID * GRID * 3


@dataclasses.dataclass(frozen=True, slots=True)
class _Item:
    """The clips of one video, and the proxies that are chosen of each as (time from the clip's start in s, JPEG)."""

    clips: tuple[Clip, ...]
    picture_size: tuple[int, int]
    proxies: tuple[tuple[tuple[float, bytes], ...], ...]


def tiny(frame: np.ndarray) -> np.ndarray:
    """(GRID, GRID, 3) uint8."""
    import cv2

    return np.asarray(cv2.resize(frame, (GRID, GRID), interpolation=cv2.INTER_AREA))


def how_many(seconds: float) -> int:
    """Tiny pictures of a clip of that length."""
    return min(_MOST, max(_FEWEST, round(seconds / _STEP_S) + 1))


def pictures_of(row: Fingerprint) -> np.ndarray:
    """(time, VALUES) float32 in [0, 1]."""
    return np.frombuffer(row.pictures, np.uint8).reshape(-1, VALUES).astype(np.float32) / 255


def _print(item: _Item, made_by: str) -> Tables:
    rows = []
    for clip, proxies in zip(item.clips, item.proxies):
        if not proxies:
            continue
        pictures = [tiny(cropped(read_jpeg(jpeg), clip.crop, item.picture_size)) for _, jpeg in proxies]
        rows.append(
            Fingerprint(
                clip_id=clip.clip_id,
                pictures=np.stack(pictures).tobytes(),
                times_s=[round(t, 6) for t, _ in proxies],
                made_by=made_by,
            )
        )
    return {FINGERPRINTS.name: FINGERPRINTS.from_rows(rows)}


def _failed(item: _Item, failure: Failure) -> Tables:
    return {FINGERPRINTS.name: FINGERPRINTS.empty()}


def _items(context: Context) -> list[_Item]:
    videos = context.read(VIDEOS, ["video_id", "width", "height", "duplicate_of"]).to_pylist()
    sizes = {v["video_id"]: (v["width"], v["height"]) for v in videos if v["duplicate_of"] is None}
    frames = context.read(FRAMES, ["video_id", "frame_index", "time_s", "jpeg"])
    at: dict[str, list[tuple[int, float, int]]] = {}
    columns = (frames[c].to_pylist() for c in ("video_id", "frame_index", "time_s"))
    for row, (video, index, time_s) in enumerate(zip(*columns)):
        at.setdefault(video, []).append((index, time_s, row))
    jpegs = frames["jpeg"]  # in the pieces that were read: one piece of all pictures is a copy, and holds 2 GB at most
    clips: dict[str, list[Clip]] = {}
    for clip in sorted(to_rows(context.read(CLIPS), Clip), key=lambda c: (c.video_id, c.start_frame)):
        clips.setdefault(clip.video_id, []).append(clip)
    items = []
    for video, some in clips.items():
        chosen = []
        for clip in some:
            inside = sorted(f for f in at.get(video, []) if clip.start_frame <= f[0] < clip.end_frame)
            picked = [inside[i] for i in nearest_indices(len(inside), how_many(clip.end_s - clip.start_s))]
            chosen.append(tuple((t - clip.start_s, jpegs[row].as_py()) for _, t, row in picked))
        items.append(_Item(tuple(some), sizes[video], tuple(chosen)))
    return items


def _fingerprints(context: Context) -> Output:
    tables = context.each(
        partial(_print, made_by=context.made_by),
        _items(context),
        key=digest,
        outputs=(FINGERPRINTS,),
        on_error=_failed,
        unit="video",
    )
    return Output(tables, metrics={"clips": tables[FINGERPRINTS.name].num_rows})


FINGERPRINTS_STAGE = Stage(
    name="fingerprints",
    version=1,
    reads=(CLIPS, FRAMES, VIDEOS),
    writes=(FINGERPRINTS,),
    run=_fingerprints,
    settings=lambda config: None,
    doc="Tiny pictures of each clip, to find near-duplicates by.",
)
