"""A root with a few clip files and their manifest, made in a second; not a test."""

import os
from pathlib import Path

import numpy as np

from pipelines.video.write import write_video
from schemas.batches import Batch, register
from schemas.captions import Fields, Subject
from schemas.clips import CLIP_FILES, ClipFile
from schemas.manifest import MANIFEST, ManifestRow
from schemas.samples import PROMPTS, Prompt
from schemas.store import Store

SIZES = [(64, 48), (48, 64), (48, 48), (96, 40)]
FPS = 8


def pictures(number: int, frames: int = 18) -> np.ndarray:
    """A bright square that crosses a plain background."""
    width, height = SIZES[number % len(SIZES)]
    video = np.full((frames, height, width, 3), (60 + 20 * (number % 5), 90, 120), np.uint8)
    for i, frame in enumerate(video):
        x = (4 + 2 * i) % (width - 12)
        frame[12:26, x : x + 12] = (230, 60 * (number % 4), 40)
    return video


def make_root(folder: Path, clips: int = 7) -> Store:
    """Clip files, manifest and prompts; clip 5 has no file, clip 6 is a single frame."""
    store = Store(folder).create()
    register(store, Batch(name="b", folder=str(folder), kind="synthetic"))
    files, rows = [], []
    for i in range(clips):
        video = pictures(i, 1 if i == 6 else 18)
        path = f"blobs/clips/clip{i}.mp4"
        os.makedirs(folder / "blobs" / "clips", exist_ok=True)
        if i != 5:
            write_video(str(folder / path), video, FPS)
        count, height, width = video.shape[:3]
        seconds = count / FPS
        files.append(
            ClipFile(
                clip_id=f"clip{i}",
                path=path,
                status="ok",
                width=width,
                height=height,
                fps=float(FPS),
                num_frames=count,
                duration_s=seconds,
                size_bytes=1,
            )
        )
        fields = Fields(subjects=[Subject(shape="square", color="red")], events=[])
        rows.append(
            ManifestRow(
                clip_id=f"clip{i}",
                manifest="manifest0",
                video_id="v",
                batch="b",
                source="s.mp4",
                start_s=0.0,
                end_s=seconds,
                path=path,
                width=width,
                height=height,
                fps=float(FPS),
                num_frames=count,
                short=f"A red square, take {i}.",
                dense=f"A red square moves right over a plain wall. Take {i}.",
                fields=fields,
                caption_model="none",
                scores="{}",
                weight=1.0,
                licence="",
                policy="p",
            )
        )
    store.commit(CLIP_FILES, CLIP_FILES.from_rows(files), batch="b", inputs="test")
    store.commit(MANIFEST, MANIFEST.from_rows(rows), inputs="test")
    prompts = [
        Prompt(
            prompt_id=f"p{i}",
            prompt="A red square moves right.",
            fields=None,
            width=w,
            height=h,
            num_frames=5,
            seed=i,
        )
        for i, (w, h) in enumerate([(32, 32), (48, 32), (32, 48), (32, 32), (33, 32)])
    ]
    store.commit(PROMPTS, PROMPTS.from_rows(prompts), inputs="test")
    return store
