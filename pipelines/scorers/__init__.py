"""The list of scorers: one file each, one line here; tables, assets, contract tests and report sections follow."""

import importlib

from pipelines.scorers.base import Scorer

_FILES = (
    "duration",
    "motion",
    "camera",
    "jitter",
    "freeze",
    "luma",
    "black",
    "contrast",
    "saturation",
    "blur",
    "blockiness",
    "flicker",
    "text",
    "overlay",
    "letterbox",
)

SCORERS: tuple[Scorer, ...] = tuple(importlib.import_module(f"pipelines.scorers.{name}").SCORER for name in _FILES)
