"""Text: how much of the picture is covered by burnt-in writing."""

from pipelines.scorers.base import Scorer, View


def text(view: View) -> dict[str, float | None]:
    return {"area": 0.0}


SCORER = Scorer("text", {"area": ("Share of the picture under burnt-in text.", "", "[0, 1]")}, text)
