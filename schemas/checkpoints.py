"""Trained weights: where they are, what they were trained on, how well they do."""

import dataclasses

from schemas.table import Table, column


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One set of weights (safetensors) with its config and card in a folder named by their digest."""

    digest: str = column("Digest of the weights file.")
    kind: str = column("clip, captioner, autoencoder, dit or expander.")
    path: str = column("Folder, relative to the root.")
    knows: str = column("What it was trained on: `synthetic`, `footage` or `general` (pretrained).")
    trained_on: str = column("Digest of the training data (a manifest digest for the dit).")
    steps: int = column("Optimiser steps.")
    metrics: str = column("What was measured on it, as JSON.")
    made_by: str = column("Digest of code version, config and models.", default="")


def checkpoint_table(kind: str) -> Table:
    """The table `<kind>_checkpoint`: one row, the current checkpoint of that kind."""
    return Table(f"{kind}_checkpoint", Checkpoint, ("digest",), partitioned=False, doc=f"The current {kind} weights.")


CLIP_CHECKPOINT = checkpoint_table("clip")
CAPTIONER_CHECKPOINT = checkpoint_table("captioner")
AUTOENCODER_CHECKPOINT = checkpoint_table("autoencoder")
DIT_CHECKPOINT = checkpoint_table("dit")
EXPANDER_CHECKPOINT = checkpoint_table("expander")
