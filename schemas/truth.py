"""The truth about synthetic footage; a table like any other, and never an input of a curation stage."""

import dataclasses

from schemas.captions import Fields
from schemas.table import Table, column


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TruthVideo:
    """What a rendered source file holds."""

    path: str = column("File, relative to the batch's folder.")
    aspect: str = column("16:9, 9:16, 4:3, 1:1 or 2.39:1.")
    width: int = column("Width.", unit="pixel")
    height: int = column("Height.", unit="pixel")
    fps: float = column("Frame rate.", unit="frame/s")
    num_frames: int = column("Frames.")
    defect: str = column("Defect of the whole file: none, duplicate or corrupt.")
    duplicate_of: str | None = column("Path of the file it repeats; null if none.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TruthShot:
    """What one shot of a rendered source file shows."""

    path: str = column("File, relative to the batch's folder.")
    shot_index: int = column("Position in the file, from 0.")
    start_frame: int = column("First frame that shows this shot alone.")
    end_frame: int = column("Frame after the last that shows this shot alone.")
    cut_in: str = column("start, hard, fade or dissolve.")
    transition_start_frame: int = column("First frame of the transition before it; start_frame for a hard cut.")
    defect: str = column("none, blur, dark, freeze, letterbox, flicker, text, watermark, static, near_duplicate.")
    flash_start_frame: int | None = column(
        "First frame of a flash inside it, which is no cut; null if none.", default=None
    )
    flash_end_frame: int | None = column("Frame after the last of that flash; null if none.", default=None)
    duplicate_of: str | None = column("`path#shot_index` of the shot it nearly repeats; null if none.")
    fields: Fields = column("Subjects, camera, background as rendered.")
    short: str = column("A short caption.")
    dense: str = column("A dense caption.")


TRUTH_VIDEOS = Table("truth_videos", TruthVideo, ("path",), doc="Truth about synthetic files.")
TRUTH_SHOTS = Table("truth_shots", TruthShot, ("path", "shot_index"), doc="Truth about synthetic shots.")
