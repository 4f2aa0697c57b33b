"""The ledger: which rows each training step saw."""

import dataclasses

from schemas.table import Table, column


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One sample of one step."""

    step: int = column("Optimiser step, from 0.")
    pack: int = column("Pack within the step.")
    position: int = column("Sample within the pack.")
    clip_id: str = column("The clip.")
    epoch: int = column("Pass over the manifest.")
    tokens: int = column("Tokens of the sample.", unit="token")
    t: float = column("Noise level; 0 is data, 1 is noise.", range="[0, 1]")
    task: str = column("Training task.")
    caption: str = column("Which caption it was trained with: short, dense or none.")
    loss: float = column("The sample's loss.")
    manifest: str = column("Digest of the manifest.")


LEDGER = Table(
    "ledger", LedgerRow, ("step", "pack", "position"), partitioned=False, doc="Which rows each training step saw."
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SkippedRow:
    """A manifest row that the last training left out."""

    clip_id: str = column("The clip.")
    manifest: str = column("Digest of the manifest.")
    reason: str = column("Why it was left out.")
    made_by: str = column("Digest of code version, config and models.", default="")


SKIPPED = Table(
    "skipped", SkippedRow, ("clip_id",), partitioned=False, doc="Manifest rows that training left out, and why."
)
