"""Scores: numbers a scorer gives a clip.  One narrow table per scorer, joined on `clip_id`."""

import dataclasses
from collections.abc import Mapping

import pyarrow as pa

from schemas.table import Table, column


def score_table(scorer: str, columns: Mapping[str, tuple[str, str, str]]) -> Table:
    """Make the table `score_<scorer>`.

    Args:
        columns: Column name to (meaning, unit, range); every column is a nullable float, null when the
            scorer failed on the clip (then `error` says why).
    """
    fields: list[tuple[str, type, dataclasses.Field[object]]] = [("clip_id", str, column("The clip."))]
    fields += [(n, float | None, column(d, unit=u, range=r)) for n, (d, u, r) in columns.items()]  # type: ignore[misc]
    fields += [
        ("error", str, column("Why the scorer failed; empty if it did not.")),
        ("made_by", str, column("Digest of code version, config and models.")),
    ]
    row = dataclasses.make_dataclass(f"Score_{scorer}", fields, frozen=True, slots=True, kw_only=True)
    return Table(f"score_{scorer}", row, ("clip_id",), doc=f"Scores by `{scorer}`.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """A clip's CLIP embedding: mean of its frames' unit vectors, normalised."""

    clip_id: str = column("The clip.")
    embedding: list[float] = column("Unit vector.", arrow=pa.list_(pa.float32()))
    first_to_last: float = column("Cosine of the first and the last frame's embedding.", range="[-1, 1]")
    model: str = column("Digest of the CLIP weights.")
    made_by: str = column("Digest of code version, config and models.", default="")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """A pair of clips that show the same thing, and which of them was kept."""

    clip_id: str = column("The clip that is dropped.")
    kept_clip_id: str = column("The clip that stays.")
    cosine: float = column("Similarity of their embeddings.", range="[-1, 1]")
    why: str = column("Why that one stays: resolution, size or order.")
    made_by: str = column("Digest of code version, config and models.", default="")


EMBEDDINGS = Table("embeddings", Embedding, ("clip_id",), doc="CLIP embedding of each clip.")
DUPLICATES = Table("duplicates", Duplicate, ("clip_id",), doc="Near-duplicates, and who was kept.")
