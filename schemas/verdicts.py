"""Verdicts: what the policy says of each clip, rule by rule, and the selection that follows."""

import dataclasses
import enum

from schemas.table import Table, column


class Verdict(enum.StrEnum):
    """An error is never a rejection."""

    KEEP = "keep"
    REJECT = "reject"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow:
    """One rule's word on one clip."""

    clip_id: str = column("The clip.")
    rule: str = column("The rule's name.")
    score_column: str = column("The score it reads, `table.column`.")
    score: float | None = column("The clip's score; null if it has none.")
    minimum: float | None = column("Smallest score that is kept; null if unbounded.")
    maximum: float | None = column("Largest score that is kept; null if unbounded.")
    verdict: str = column("keep, reject, error (no score) or skipped (rule does not decide here).")
    reason: str = column("In words.")
    made_by: str = column("Digest of code version, config and models.", default="")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """All rules together: keep only if no rule rejects and none is in error."""

    clip_id: str = column("The clip.")
    verdict: str = column("keep, reject or error.")
    reasons: list[str] = column("Names of the rules that rejected it (or erred), in policy order.")
    made_by: str = column("Digest of code version, config and models.", default="")


VERDICTS = Table("verdicts", VerdictRow, ("clip_id", "rule"), doc="One row per clip and rule.")
CAPTION_VERDICTS = Table(
    "caption_verdicts",
    VerdictRow,
    ("clip_id", "rule"),
    partitioned=False,
    doc="One row per captioned clip and rule of the caption gate.",
)
SELECTIONS = Table("selections", Selection, ("clip_id",), doc="The policy's final word per clip.")
