"""Clips: the span of a shot we keep; the unit of every later table.  First as spans, then as files."""

import dataclasses

from schemas.table import Table, column


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A span; nothing is encoded before it has been kept."""

    clip_id: str = column("hash(video_id, start_pts, end_pts, crop, cutter version).")
    video_id: str = column("The video.")
    shot_id: str = column("The shot it lies in.")
    start_pts: int = column("First frame, in the stream's time base.")
    end_pts: int = column("End (exclusive), in the stream's time base.")
    time_base_num: int = column("Time base, numerator.", unit="s")
    time_base_den: int = column("Time base, denominator.")
    start_frame: int = column("Index of the first decoded frame.")
    end_frame: int = column("Index after the last decoded frame.")
    start_s: float = column("First frame's time.", unit="s")
    end_s: float = column("End time (exclusive).", unit="s")
    fps: float = column("Frames over duration.", unit="frame/s")
    crop: list[int] | None = column("x, y, width, height of the picture inside its black bars; null if whole.")
    width: int = column("Width as shown, after the crop.", unit="pixel")
    height: int = column("Height as shown, after the crop.", unit="pixel")
    max_inner_boundary: float = column("Strongest boundary evidence inside the clip.", range="[0, 1]")
    made_by: str = column("Digest of code version, config and models.", default="")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClipFile:
    """The encoded file of a kept clip."""

    clip_id: str = column("The clip.")
    path: str = column("File, relative to the root; empty if cutting failed.")
    status: str = column("ok or failed.")
    reason: str = column("Why it failed.", default="")
    width: int = column("Width.", unit="pixel")
    height: int = column("Height.", unit="pixel")
    fps: float = column("Frame rate.", unit="frame/s")
    num_frames: int = column("Frames in the file; equals the span's.")
    duration_s: float = column("Length.", unit="s")
    size_bytes: int = column("File size.", unit="byte")
    made_by: str = column("Digest of code version, config and models.", default="")


CLIPS = Table("clips", Clip, ("clip_id",), doc="Spans of shots, not yet encoded.")
CLIP_FILES = Table("clip_files", ClipFile, ("clip_id",), doc="Encoded files of the kept clips.")
