"""A root filled by hand: one video with two clips, one kept and trained on, one rejected."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.video.write import write_video
from schemas import batches
from schemas.captions import CAPTIONS
from schemas.checkpoints import DIT_CHECKPOINT
from schemas.clips import CLIP_FILES, CLIPS
from schemas.latents import LATENTS
from schemas.ledger import LEDGER
from schemas.manifest import MANIFEST
from schemas.samples import EVALUATION, SAMPLES
from schemas.scores import score_table
from schemas.shots import SHOTS
from schemas.store import Store
from schemas.table import Table
from schemas.verdicts import SELECTIONS, VERDICTS
from schemas.videos import FRAMES, SCANS, VIDEOS

KEPT, REJECTED = "aa" * 10, "ab" * 10
BLUR = score_table("blur", {"sharpness": ("How sharp.", "", "[0, 1]")})


def jpeg(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), (shade, 90, 40)).save(buffer, "JPEG")
    return buffer.getvalue()


def _default(kind: pa.DataType, nullable: bool) -> Any:
    if nullable:
        return None
    if pa.types.is_list(kind):
        return []
    if pa.types.is_struct(kind):
        return {f.name: _default(f.type, f.nullable) for f in kind}
    if pa.types.is_boolean(kind):
        return False
    if pa.types.is_integer(kind):
        return 1
    if pa.types.is_floating(kind):
        return 0.5
    return b"" if pa.types.is_binary(kind) else ""


def row(table: Table, **given: Any) -> dict[str, Any]:
    """A row with something harmless in every column that is not given."""
    return {f.name: given.get(f.name, _default(f.type, f.nullable)) for f in table.schema}


def commit(store: Store, table: Table, *rows: dict[str, Any]) -> None:
    filled = table.from_rows([row(table, **r) for r in rows])
    store.commit(table, filled, batch="films" if table.partitioned else None, metrics={"seconds": 2.5})


def root(path: Path, kind: str = batches.FOOTAGE) -> Store:
    """The whole of it."""
    store = Store(path).create()
    batches.register(store, batches.Batch(name="films", folder=str(path / "incoming"), kind=kind))
    commit(
        store,
        VIDEOS,
        {"path": "a.mp4", "video_id": "v1", "status": "ok", "width": 160, "height": 120},
        {"path": "b<i>.mp4", "video_id": "v2", "status": "unreadable", "reason": "moov atom not found"},
    )
    commit(
        store,
        SCANS,
        {"video_id": "v1", "status": "ok", "decode_passes": 1},
        {"video_id": "v2", "status": "unreadable", "decode_passes": 0},
    )
    commit(store, SHOTS, {"shot_id": "s1", "video_id": "v1", "cut_in": "start", "cut_out": "end"})
    span = {"video_id": "v1", "shot_id": "s1", "width": 160, "height": 120}
    commit(
        store,
        CLIPS,
        {"clip_id": KEPT, "start_frame": 0, "end_frame": 10, "start_s": 0.0, "end_s": 1.0, **span},
        {"clip_id": REJECTED, "start_frame": 10, "end_frame": 20, "start_s": 1.0, "end_s": 2.0, **span},
    )
    commit(store, FRAMES, *[{"video_id": "v1", "frame_index": i, "jpeg": jpeg(i * 10)} for i in range(0, 20, 4)])
    commit(store, BLUR, {"clip_id": KEPT, "sharpness": 0.9}, {"clip_id": REJECTED, "sharpness": 0.1})
    verdict = {"rule": "blur", "score_column": "blur.sharpness", "minimum": 0.2}
    commit(
        store,
        VERDICTS,
        {"clip_id": KEPT, "verdict": "keep", "score": 0.9, **verdict},
        {"clip_id": REJECTED, "verdict": "reject", "score": 0.1, "reason": "sharpness 0.1 is below 0.2", **verdict},
    )
    commit(
        store,
        SELECTIONS,
        {"clip_id": KEPT, "verdict": "keep"},
        {"clip_id": REJECTED, "verdict": "reject", "reasons": ["blur"]},
    )
    commit(store, CLIP_FILES, {"clip_id": KEPT, "path": "blobs/clips/aa.mp4", "status": "ok"})
    commit(store, CAPTIONS, {"clip_id": KEPT, "dense": "A <red> disc rolls left.", "short": "A disc.", "status": "ok"})
    commit(
        store, MANIFEST, {"clip_id": KEPT, "manifest": "m1", "batch": "films", "source": "a.mp4", "dense": "A disc."}
    )
    commit(store, LATENTS, {"clip_id": KEPT, "status": "ok"})
    seen = {"clip_id": KEPT, "caption": "dense", "task": "text_to_video", "manifest": "m1", "position": 0, "pack": 0}
    commit(store, LEDGER, *[{"step": i, "loss": 2.0 - i / 10, "tokens": 7, "t": 0.5, **seen} for i in range(10)])
    measure = {"low": 0.4, "high": 0.8, "n": 20}
    commit(
        store,
        EVALUATION,
        {"group": "boundaries", "name": "hard", "metric": "f1", "value": 0.97, "n": 0},
        {"group": "policy", "name": "blur", "metric": "recall", "value": 0.6, **measure},
        {"group": "policy", "name": "dark", "metric": "recall", "value": None, "n": 0},
        {"group": "generated", "name": "color", "metric": "accuracy", "value": 0.6, "chance": 0.17, **measure},
        {"group": "control", "name": "color", "metric": "accuracy", "value": 0.2, "chance": 0.17, **measure},
        {"group": "seen_whole", "name": "together", "metric": "accuracy", "value": 0.5, "chance": 0.01, **measure},
        {"group": "unseen_whole", "name": "together", "metric": "accuracy", "value": 0.6, "chance": 0.01, **measure},
        {"group": "control_unseen_whole", "name": "together", "metric": "accuracy", "value": 0.1, "n": 20},
        {"group": "unseen_subject", "name": "together", "metric": "accuracy", "value": None, "n": 0},
    )
    commit(store, DIT_CHECKPOINT, {"digest": "d1", "kind": "dit", "knows": "synthetic", "metrics": "{}"})
    made = Path(store.scratch()) / "made.mp4"
    write_video(made, np.tile(np.arange(64, dtype=np.uint8)[None, None, :, None] * 4, (5, 48, 1, 3)), 8.0)
    path = store.publish(made, "blobs", "samples", "p2.mp4")
    commit(
        store,
        SAMPLES,
        {"prompt_id": "p1", "status": "failed", "reason": "no such size", "prompt": "a red disc"},
        {
            "prompt_id": "p2",
            "status": "ok",
            "path": path,
            "prompt": "a blue disc",
            "width": 64,
            "height": 48,
            "num_frames": 5,
        },
    )
    return store
