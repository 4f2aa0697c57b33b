"""Duration: how long the clip is; a score like any other, so that the policy can say `too short`."""

from pipelines.scorers.base import Scorer, View


def duration(view: View) -> dict[str, float]:
    """Seconds and frames."""
    return {
        "seconds": view.clip.end_s - view.clip.start_s,
        "frames": float(view.clip.end_frame - view.clip.start_frame),
    }


SCORER = Scorer(
    "duration",
    {"seconds": ("Length of the clip.", "s", "[0, inf)"), "frames": ("Frames in the clip.", "frame", "[1, inf)")},
    duration,
)
