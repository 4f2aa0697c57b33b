"""Saturation: how colourful the clip is; 0 for black and white film."""

from pipelines.scorers.base import Scorer, View


def saturation(view: View) -> dict[str, float]:
    """Mean distance of the chroma from grey."""
    return {"mean": float(view.saturation.mean())}


SCORER = Scorer("saturation", {"mean": ("Mean distance of the chroma from grey.", "", "[0, 1]")}, saturation)
