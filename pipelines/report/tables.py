"""What the report reads: tables as rows or as columns, each read once, and the proxy frames of the clips it shows.

A table that was never made is empty.  Of the proxy frames only the videos of the clips that are shown are read.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipelines.execute import Context
from schemas.clips import CLIPS
from schemas.table import Table
from schemas.videos import FRAMES


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """One part of the page."""

    name: str
    text: str
    """HTML; empty if there is nothing to show."""
    pictures: int = 0
    rows: int = 0
    """Table rows it was made from."""


class Tables:
    """The root's tables as the report asks for them."""

    def __init__(self, context: Context) -> None:
        self.context, self.store = context, context.store
        self._read: dict[tuple[str, tuple[str, ...]], list[dict[str, Any]]] = {}

    def rows(self, table: Table, *columns: str) -> list[dict[str, Any]]:
        key = (table.name, columns)
        if key not in self._read:
            found = self.context.read_optional(table, list(columns) or None)
            self._read[key] = found.to_pylist() if found is not None else []
        return self._read[key]

    def columns(self, table: Table, *names: str) -> dict[str, np.ndarray]:
        """Columns of all batches as arrays; a number that is null, or that a batch does not have yet, is NaN."""
        found: dict[str, list[np.ndarray]] = {n: [] for n in names}
        for batch in self.store.batches(table):
            read = self.store.read(table, batch=batch, columns=list(names))
            for name in names:
                known = name in read.column_names
                found[name].append(read[name].to_numpy() if known else np.full(read.num_rows, np.nan))
        return {n: np.concatenate(parts) if parts else np.zeros(0) for n, parts in found.items()}

    def clips(self) -> dict[str, dict[str, Any]]:
        """Where each clip lies, by id."""
        names = ("clip_id", "video_id", "start_frame", "end_frame", "start_s", "end_s", "width", "height")
        return {r["clip_id"]: r for r in self.rows(CLIPS, *names)}

    def middles(self, clip_ids: Sequence[str]) -> dict[str, bytes]:
        """The middle proxy frame of some clips; one without proxies is left out."""
        known = self.clips()
        found = self.frames([known[c] for c in sorted(set(clip_ids)) if c in known])
        return {c: jpegs[len(jpegs) // 2] for c, jpegs in found.items() if jpegs}

    def frames(self, clips: Sequence[Mapping[str, Any]]) -> dict[str, list[bytes]]:
        """First, middle and last proxy frame of some clips, by clip id."""
        found: dict[str, list[bytes]] = {}
        videos = sorted({c["video_id"] for c in clips})
        pictures: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        for batch in self.store.batches(FRAMES) if videos else []:
            path = self.store.table_path(FRAMES, batch)
            read = pq.read_table(
                path,
                columns=["video_id", "frame_index", "jpeg"],
                filters=[("video_id", "in", videos)],
                filesystem=self.store.fs,
                partitioning=None,
            )
            for video, index, jpeg in zip(*(read[c].to_pylist() for c in ("video_id", "frame_index", "jpeg"))):
                pictures[video].append((index, jpeg))
        for clip in clips:
            inside = [j for i, j in sorted(pictures[clip["video_id"]]) if clip["start_frame"] <= i < clip["end_frame"]]
            found[clip["clip_id"]] = (
                [inside[i] for i in sorted({0, len(inside) // 2, len(inside) - 1})] if inside else []
            )
        return found
