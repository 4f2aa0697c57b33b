"""The list of scorers: one file each, one line here; tables, assets and contract tests follow from it."""

from pipelines.scorers import blur, duration, flicker, freeze, letterbox, luma, motion, overlay, saturation, text
from pipelines.scorers.base import Scorer

SCORERS: tuple[Scorer, ...] = (
    duration.SCORER,
    motion.SCORER,
    freeze.SCORER,
    luma.SCORER,
    saturation.SCORER,
    blur.SCORER,
    flicker.SCORER,
    text.SCORER,
    overlay.SCORER,
    letterbox.SCORER,
)
