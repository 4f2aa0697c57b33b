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
class Fingerprint:
    """A clip as a row of tiny pictures."""

    clip_id: str = column("The clip.")
    pictures: bytes = column("Tiny pictures in time order, each 12 x 12 x 3 bytes RGB.")
    times_s: list[float] = column("When each is shown, from the clip's start.", unit="s")
    made_by: str = column("Digest of code version, config and models.", default="")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """A pair of clips that show the same thing, and which of them is better: the policy keeps the best that it can."""

    clip_id: str = column("The lesser clip; it is dropped where the better one is kept.")
    kept_clip_id: str = column("The better clip.")
    cosine: float = column("Similarity of their embeddings, or of their tiny pictures.", range="[-1, 1]")
    why: str = column("Why that one is better: resolution, size or order.")
    witness: str = column("Who says that they are the same: `pixels and CLIP`, or `pixels`.", default="")
    difference: float = column("Mean difference of their tiny pictures at the best shift.", range="[0, 1]", default=0.0)
    shift_s: float = column("When the lesser clip begins, in the better one's time.", unit="s", default=0.0)
    batch: str = column("Batch of the lesser clip.", default="")
    kept_batch: str = column("Batch of the better clip.", default="")
    made_by: str = column("Digest of code version, config and models.", default="")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The group of clips that a clip belongs to, and how often it should be drawn so that groups count alike."""

    clip_id: str = column("The clip.")
    cluster: int = column("Number of the group.")
    size: int = column("Clips in the group; a clip and its lesser twins count once.")
    weight: float = column("Sampling weight, by 1 / sqrt(size), mean 1 over all clips.", range="(0, inf)")
    space: str = column("What the groups were made in: `CLIP` or `pixels`.")
    made_by: str = column("Digest of code version, config and models.", default="")


EMBEDDINGS = Table("embeddings", Embedding, ("clip_id",), doc="CLIP embedding of each clip.")
FINGERPRINTS = Table("fingerprints", Fingerprint, ("clip_id",), doc="Tiny pictures of each clip.")
DUPLICATES = Table(
    "duplicates",
    Duplicate,
    ("clip_id", "kept_clip_id"),
    partitioned=False,
    doc="Pairs of near-duplicates in all batches, and which is better.",
)
CLUSTERS = Table("clusters", Cluster, ("clip_id",), partitioned=False, doc="Groups of like clips, to sample evenly by.")
