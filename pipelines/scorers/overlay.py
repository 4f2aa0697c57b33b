"""Overlay."""

from pipelines.scorers.base import Scorer, View


def overlay(view: View) -> dict[str, float | None]:
    return {"corner": 0.0}


SCORER = Scorer("overlay", {"corner": ("x", "", "[0, 1]")}, overlay)
