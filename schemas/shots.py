"""Shots: frames between two boundaries; and what lies between and inside them."""

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
    FLASH = "flash"
    """Not a boundary: a few odd frames inside a shot that a detector would take for one."""


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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryRow:
    """One thing on a video's time line that a shot ends at, or does not: a cut, a transition, a flash, damage.

    The frames of fades, dissolves and damage belong to no shot and to no clip, and this is the reason; those of
    a flash stay in their shot; a hard cut has no frames.
    """

    video_id: str = column("The video.")
    kind: str = column("hard, fade, dissolve, damage or flash.")
    start_frame: int = column("Index of its first decoded frame; of the first frame of the new shot for a hard cut.")
    end_frame: int = column("Index after its last decoded frame; start_frame for a hard cut.")
    start_pts: int = column("First frame, in the stream's time base.")
    end_pts: int = column("End (exclusive), in the stream's time base.")
    start_s: float = column("First frame's time.", unit="s")
    end_s: float = column("End time (exclusive).", unit="s")
    evidence: float | None = column("Strongest evidence for it; null for a fade and for damage.", range="[0, 1]")
    reason: str = column("What went wrong, where the whole video is given up; empty otherwise.", default="")


BOUNDARIES = Table(
    "boundaries", BoundaryRow, ("video_id", "start_frame", "kind"), doc="Cuts, transitions, flashes, damage."
)
SHOTS = Table("shots", Shot, ("shot_id",), doc="Frames between two boundaries.")
