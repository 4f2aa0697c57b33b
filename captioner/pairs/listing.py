"""Takes a pair file into a root: checked once, clips of the root looked up, and kept as a list that the stage reads.

    <root>/work/pairs/lists/<digest>.parquet      table `pair_list`; `captioner.pairs.lists` names the digest

The stage `pairs` then depends on nothing but that list, whatever becomes of the file, and does not wait for the
footage of a run that has no such list.  A clip of the root comes with the very proxies that captioning is shown.
Forgetting a video removes lists that hold its clips; the stage then says which file to give again.
"""

import dataclasses
import io
import posixpath
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captioner.frames import crop_box
from captioner.pairs.read import check_rows, read_rows, split_of
from schemas.captions import PAIR_LIST, Listed
from schemas.clips import CLIPS
from schemas.errors import UsageError
from schemas.store import Store, content_digest
from schemas.videos import FRAMES, VIDEOS

_AT = ("work", "pairs", "lists")


def take_file(store: Store, path: str) -> tuple[str, list[Listed]]:
    """Check a pair file, keep it as a list, and return its digest and its rows.

    Raises:
        UsageError: If the file does not read, or no row of it can be used; names the first reasons.
    """
    return take_rows(store, check_rows(path, read_rows(path), f"file:{posixpath.basename(path)}"), path)


def take_rows(store: Store, listed: Iterable[Listed], name: str) -> tuple[str, list[Listed]]:
    """Look clips of the root up, and keep the list.

    Args:
        name: What the rows are from, for messages.
    """
    rows = looked_up(store, list(listed))
    if all(row.reason for row in rows):
        first = "; ".join(f"row {r.row}, column `{r.column_name}`: {r.reason}" for r in rows[:3])
        raise UsageError(f"none of the {len(rows)} rows of {name} can be used; {first}")
    table = PAIR_LIST.from_rows(rows)
    digest = content_digest(table)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    store.write_bytes(buffer.getvalue(), *_AT, f"{digest}.parquet")
    return digest, rows


def read_list(store: Store, digest: str) -> list[dict[str, Any]]:
    """The rows of a list.

    Raises:
        UsageError: If it is not there any more.
    """
    at = (*_AT, f"{digest}.parquet")
    if not store.exists(*at):
        raise UsageError(
            f"pair list {digest} is not under {store.root} (a video that it showed may have been forgotten): give the "
            "file again with `dailies captioner train --pairs FILE`"
        )
    return pq.read_table(io.BytesIO(store.read_bytes(*at))).to_pylist()


def looked_up(store: Store, rows: Sequence[Listed]) -> list[Listed]:
    """Rows that name a clip of the root, with its proxies; an unknown clip is a row with its reason."""
    wanted = sorted({row.clip_id for row in rows if row.clip_id and not row.reason})
    if not wanted:
        return list(rows)
    clips, frames, shown = _clips(store, wanted)
    return [
        _with_frames(row, clips.get(row.clip_id), frames, shown, store.root) if row.clip_id and not row.reason else row
        for row in rows
    ]


def _clips(store: Store, wanted: Sequence[str]) -> tuple[dict[str, Any], dict[str, list[Any]], dict[str, Any]]:
    """Clips by id, proxies by video in time order, and the videos' sizes as shown."""
    clips: dict[str, Any] = {}
    frames: dict[str, list[Any]] = {}
    shown: dict[str, Any] = {}
    ids = pa.array(wanted, pa.string())
    for batch in store.batches(CLIPS):
        table = store.read(CLIPS, batch=batch)
        found = table.filter(pc.is_in(table["clip_id"], ids)).to_pylist()
        if not found:
            continue
        clips.update({c["clip_id"]: c for c in found})
        videos = pa.array(sorted({c["video_id"] for c in found}), pa.string())
        proxies = store.read(FRAMES, batch=batch)
        for proxy in proxies.filter(pc.is_in(proxies["video_id"], videos)).to_pylist():
            frames.setdefault(proxy["video_id"], []).append(proxy)
        sizes = store.read(VIDEOS, batch=batch, columns=["video_id", "width", "height"])
        shown.update({v["video_id"]: (v["width"], v["height"]) for v in sizes.to_pylist()})
    return clips, frames, shown


def _with_frames(
    row: Listed, clip: dict[str, Any] | None, frames: dict[str, list[Any]], shown: dict[str, Any], root: str
) -> Listed:
    if clip is None:
        return dataclasses.replace(row, column_name="clip_id", reason=f"no clip `{row.clip_id}` under {root}")
    inside = sorted(
        (p for p in frames.get(clip["video_id"], ()) if clip["start_frame"] <= p["frame_index"] < clip["end_frame"]),
        key=lambda p: p["frame_index"],
    )
    if not inside:
        return dataclasses.replace(row, column_name="clip_id", reason=f"clip `{row.clip_id}` has no proxy frames")
    size = (inside[0]["width"], inside[0]["height"])
    box = crop_box(clip["crop"], shown[clip["video_id"]], size) if clip["video_id"] in shown else None
    return dataclasses.replace(
        row,
        split=row.split or split_of(clip["video_id"]),
        start_s=clip["start_s"],
        end_s=clip["end_s"],
        frames=[p["jpeg"] for p in inside],
        times_s=[p["time_s"] - clip["start_s"] for p in inside],
        width=size[0],
        height=size[1],
        box=list(box) if box else None,
    )
