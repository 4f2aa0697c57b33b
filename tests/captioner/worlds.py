"""Small worlds for the captioner's tests: coloured clips, their proxies, and pairs with truth."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from schemas import batches
from schemas.captions import PAIRS, Fields, Pair, Subject
from schemas.clips import CLIPS, Clip
from schemas.language import render_dense, render_short
from schemas.store import Store
from schemas.verdicts import SELECTIONS, Selection
from schemas.videos import FRAMES, VIDEOS, ProxyFrame, Video

COLORS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220)}


def jpeg(color: Sequence[int], width: int, height: int, at: int = 0) -> bytes:
    """A picture of one colour with a white mark at a place, so that frames can be told apart."""
    picture = np.full((height, width, 3), color, np.uint8)
    picture[:, at % width : at % width + 3] = 255
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def record(color: str, motion: str) -> Fields:
    return Fields(
        subjects=[Subject(shape="square", color=color, size="large", motion=motion)],
        events=[],
        camera="static",
        background="sand",
    )


def pair(number: int, split: str = "train", size: tuple[int, int] = (48, 24), num_frames: int = 8) -> Pair:
    """A pair whose colour and direction follow from its number."""
    color = list(COLORS)[number % 3]
    right = number % 2 == 0
    fields = record(color, "moving right" if right else "moving left")
    places = [3 * (i if right else num_frames - i) for i in range(num_frames)]
    return Pair(
        pair_id=f"{split}-{number:04d}",
        split=split,
        frames=[jpeg(COLORS[color], *size, at) for at in places],
        times_s=[i * 0.25 for i in range(num_frames)],
        width=size[0],
        height=size[1],
        short=render_short(fields, number),
        dense=render_dense(fields, number),
        fields=fields,
        source="synthetic",
    )


def pairs(count: int = 12, held_out: int = 3) -> list[Pair]:
    sizes = ((48, 24), (24, 48))
    return [pair(i, "train", sizes[i % 2]) for i in range(count)] + [pair(i, "held_out") for i in range(held_out)]


def clip(name: str, *, start: int, end: int, crop: list[int] | None = None) -> Clip:
    """A clip of video `v`, whose frame n is shown at n / 10 s; proxies are every other frame."""
    return Clip(
        clip_id=name,
        video_id="v",
        shot_id="s",
        start_pts=start,
        end_pts=end,
        time_base_num=1,
        time_base_den=10,
        start_frame=start,
        end_frame=end,
        start_s=start / 10,
        end_s=end / 10,
        fps=10.0,
        crop=crop,
        width=64,
        height=48,
        max_inner_boundary=0.0,
    )


def proxy(index: int, data: bytes | None = None) -> ProxyFrame:
    color = list(COLORS.values())[index // 20 % 3]
    return ProxyFrame(
        video_id="v",
        frame_index=index,
        pts=index,
        time_s=index / 10,
        width=64,
        height=48,
        jpeg=jpeg(color, 64, 48, index) if data is None else data,
    )


def footage(root: Path, kind: str = batches.SYNTHETIC) -> Store:
    """A root with one batch `b`: clips c0..c5 kept, c6 rejected, `blind` without proxies, `torn` with a damaged one."""
    store = Store(root).create()
    batches.register(store, batches.Batch(name="b", folder=str(root), kind=kind))
    store.commit(PAIRS, PAIRS.from_rows(pairs()))
    clips = [clip(f"c{i}", start=20 * i, end=20 * i + 20) for i in range(7)]
    clips += [clip("blind", start=1000, end=1020), clip("torn", start=400, end=420)]
    frames = [proxy(i) for i in range(0, 140, 2)] + [proxy(i, b"no picture") for i in range(400, 420, 2)]
    chosen = [
        Selection(clip_id=c.clip_id, verdict="reject" if c.clip_id == "c6" else "keep", reasons=[]) for c in clips
    ]
    video = Video(path="v.mp4", folder=str(root), video_id="v", status="ok", width=640, height=480)
    store.commit(CLIPS, CLIPS.from_rows(clips), batch="b")
    store.commit(FRAMES, FRAMES.from_rows(frames), batch="b")
    store.commit(SELECTIONS, SELECTIONS.from_rows(chosen), batch="b")
    store.commit(VIDEOS, VIDEOS.from_rows([video]), batch="b")
    return store
