"""Shots: frames between two boundaries."""

import dataclasses
import enum

from schemas.table import Table, column


class Boundary(enum.StrEnum):
    """What separates two shots."""

    START = "start"
    END = "end"
    HARD = "hard"
    FADE = "fade"
    DISSOLVE = "dissolve"
    DAMAGE = "damage"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One shot, trimmed of the gradual transitions at its ends; `[start, end)`."""

    shot_id: str = column("hash(video_id, start_pts, end_pts).")
    video_id: str = column("The video.")
    shot_index: int = column("Position among the shots of its video, from 0.")
    start_pts: int = column("First frame, in the stream's time base.")
    end_pts: int = column("End (exclusive): first frame after it, or the end of the last frame.")
    start_frame: int = column("Index of the first decoded frame.")
    end_frame: int = column("Index after the last decoded frame.")
    start_s: float = column("First frame's time.", unit="s")
    end_s: float = column("End time (exclusive).", unit="s")
    cut_in: str = column("Boundary it begins with: start, hard, fade, dissolve or damage.")
    cut_out: str = column("Boundary it ends with: end, hard, fade, dissolve or damage.")


SHOTS = Table("shots", Shot, ("shot_id",), doc="Frames between two boundaries.")
