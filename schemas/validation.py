"""Validation: the loss of fixed clips at fixed noise levels and noise, as training went on."""

import dataclasses

from schemas.table import Table, column


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ValidationRow:
    """One cell of the grid, after some steps."""

    step: int = column("Optimiser steps taken.")
    clip_id: str = column("The clip.")
    task: str = column("Task: what is given.")
    t: float = column("Noise level; 0 is data, 1 is noise.", range="[0, 1]")
    held_out: bool = column("Whether the clip was kept out of training.")
    aspect: str = column("Shape of the picture: wide, square or tall.")
    frames: int = column("Latent frames.")
    height: int = column("Tokens along height.", unit="token")
    width: int = column("Tokens along width.", unit="token")
    loss: float = column("Loss of the average weights, on noise that is the same at every step and in every run.")
    manifest: str = column("Digest of the manifest.")


VALIDATION = Table(
    "validation",
    ValidationRow,
    ("step", "clip_id", "task", "t"),
    partitioned=False,
    doc="The validation grid: noise level, size, duration, aspect and task, on fixed noise. Comparable between runs.",
)
