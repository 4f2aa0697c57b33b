"""Letterbox: how much of the frame the picture fills.  Bars are cropped, not rejected; the share is kept
because a picture that fills little of its frame has few pixels left.
"""

from pipelines.scorers.base import Scorer, View


def letterbox(view: View) -> dict[str, float]:
    """Area inside the crop box over the whole area."""
    width, height = view.picture_size
    if view.clip.crop is None or width * height == 0:
        return {"picture_fraction": 1.0}
    return {"picture_fraction": view.clip.crop[2] * view.clip.crop[3] / (width * height)}


SCORER = Scorer(
    "letterbox", {"picture_fraction": ("Area inside the black bars over the whole area.", "", "(0, 1]")}, letterbox
)
