"""Forgetting a video: its rows and blobs go from a root, and what had seen it is listed.

A row goes if it names the video, one of its clips or shots, or its path.  Files that such rows point at go, finished
parts under `work/` that hold such rows, labels of its clips, and every contact sheet and report page, because
pictures cannot be searched (they are made again by the next run of their stage).  Each table is replaced in one
step with its footer kept, so that a run which is cut short can be repeated, and stages that made the tables do not
make the rows again.  Frozen manifests, latents' shards and weights are immutable: those that saw the video are listed.

The source file is not touched: delete it too, else it comes back when its folder is probed again.
"""

import dataclasses
import json
import posixpath
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.clips import CLIP_FILES, CLIPS
from schemas.errors import DamagedTable, UsageError
from schemas.labels import LABELS, WRITTEN
from schemas.latents import LATENTS
from schemas.ledger import LEDGER
from schemas.shots import SHOTS
from schemas.store import Store
from schemas.table import Table
from schemas.videos import VIDEOS


@dataclasses.dataclass(slots=True)
class Trace:
    """Everything that names a video."""

    video_id: str
    paths: list[str]
    sources: list[str]
    """Its files, folder and all."""
    clips: set[str] = dataclasses.field(default_factory=set)
    shots: set[str] = dataclasses.field(default_factory=set)
    rows: dict[str, int] = dataclasses.field(default_factory=dict)
    """Table (or batch of one) to the rows that go."""
    files: list[str] = dataclasses.field(default_factory=list)
    """Files under the root that go, relative to it."""
    seen_by: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    """What is listed and stays: manifests, latent shards, checkpoints."""

    def as_json(self) -> dict[str, Any]:
        return {
            "video_id": self.video_id,
            "sources": self.sources,
            "clips": len(self.clips),
            "rows": self.rows,
            "files": len(self.files),
            "seen_by": self.seen_by,
        }


def trace(store: Store, video: str, tables: Sequence[Table]) -> Trace:
    """Find all that names a video; nothing is changed.

    Args:
        video: Its id, how its id begins (8 digits at least), or its path as `videos` has it.
        tables: Every table that a stage writes.

    Raises:
        UsageError: If there is no such video, or more than one.
    """
    found = _find(store, video)
    for table, sink in ((CLIPS, found.clips), (SHOTS, found.shots)):
        column = table.key[0]
        for name in store.batches(table):
            rows = store.read(table, batch=name, columns=[column, "video_id"])
            sink.update(rows.filter(pc.equal(rows["video_id"], found.video_id))[column].to_pylist())
    for table in tables:
        for batch in _places(store, table):
            rows = store.read(table, batch=batch)
            gone = pc.sum(_names(rows, table, found)).as_py() or 0
            if gone:
                found.rows[f"{table.name} [{batch}]" if batch else table.name] = gone
                found.files += _blobs(rows.filter(_names(rows, table, found)), table)
    found.files += _parts(store, found)
    found.files += _capsules(store, found)
    found.files += _pictures(store)
    found.seen_by = _seen_by(store, found)
    return found


def forget(store: Store, found: Trace, tables: Sequence[Table]) -> None:
    """Remove what `trace` found.  Blobs go first, so that a run cut short still finds the rows that name them."""
    for file in found.files:
        if store.exists(*file.split("/")):
            store.fs.rm_file(store.at(*file.split("/")))
    _unlabel(store, found)
    for table in sorted(tables, key=lambda t: t.name in (VIDEOS.name, CLIPS.name, SHOTS.name)):  # what finds it, last
        for batch in _places(store, table):
            rows = store.read(table, batch=batch)
            gone = _names(rows, table, found)
            if pc.any(gone).as_py():
                store.shrink(table, rows.filter(pc.invert(gone)), batch=batch)


def _find(store: Store, video: str) -> Trace:
    read = [store.read(VIDEOS, batch=b, columns=["path", "folder", "video_id"]) for b in store.batches(VIDEOS)]
    rows = [r for table in read for r in table.to_pylist()]
    ids = {r["video_id"] for r in rows if r["path"] == video or r["video_id"] == video}
    if not ids and len(video) >= 8:
        ids = {r["video_id"] for r in rows if r["video_id"].startswith(video)}
    if len(ids) != 1:
        what = f"{len(ids)} videos are called" if ids else "no video is called"
        raise UsageError(f"{what} `{video}` under {store.root}: give a path as `videos` has it, or an id")
    (name,) = ids
    mine = [r for r in rows if r["video_id"] == name]
    sources = sorted({posixpath.join(r["folder"], r["path"]) for r in mine})
    return Trace(name, sorted({r["path"] for r in mine}), sources)


def _places(store: Store, table: Table) -> list[str | None]:
    """Batches that have a table; [None] for one that is kept once."""
    if table.partitioned:
        return list(store.batches(table))
    return [None] if store.fs.exists(store.table_path(table)) else []


def _names(rows: pa.Table, table: Table, found: Trace) -> pa.Array:
    """True for each row that names the video, its clips, its shots or its path."""
    wanted: list[tuple[str, set[str]]] = [
        ("video_id", {found.video_id}),
        ("clip_id", found.clips),
        ("kept_clip_id", found.clips),
        ("shot_id", found.shots),
        ("source", set(found.sources)),
    ]
    if table.name == VIDEOS.name or table.name.startswith("truth_"):
        wanted += [("path", set(found.paths)), ("duplicate_of", set(found.paths))]
    mask = pa.array([False] * rows.num_rows, pa.bool_())
    for column, values in wanted:
        if column in rows.column_names and values and rows.num_rows:
            hit = pc.is_in(rows[column], value_set=pa.array(sorted(values), pa.string()))
            mask = pc.or_(mask, hit.combine_chunks() if isinstance(hit, pa.ChunkedArray) else hit)
    return mask


def _blobs(rows: pa.Table, table: Table) -> list[str]:
    return [p for p in rows["path"].to_pylist() if p] if table.name == CLIP_FILES.name else []


def _parts(store: Store, found: Trace) -> list[str]:
    """Finished items of unfinished stages that hold such rows."""
    gone = []
    for path in sorted(store.fs.glob(store.at("work", "**", "*.parquet"))):
        try:
            with store.fs.open(path, "rb") as f:
                file = pq.ParquetFile(f)
                names = [n for n in ("video_id", "clip_id", "shot_id") if n in file.schema_arrow.names]
                rows = file.read(columns=names)
        except (pa.ArrowException, OSError):
            continue  # cut short: never read as finished
        if names and pc.any(_names(rows, LEDGER, found)).as_py():
            gone.append(posixpath.relpath(path, store.path))
    return gone


def _capsules(store: Store, found: Trace) -> list[str]:
    """Crash capsules of training whose step saw one of the clips: they hold its latent and its captions."""
    gone = []
    for path in sorted(store.fs.glob(store.at("logs", "*", "*", "capsules", "*", "capsule.json"))):
        seen = {s["clip_id"] for s in json.loads(store.fs.cat_file(path))["samples"]}
        if seen & found.clips:
            files = store.fs.find(posixpath.dirname(path))
            gone += [posixpath.relpath(file, store.path) for file in sorted(files)]
    return gone


def _pictures(store: Store) -> list[str]:
    wanted = (("blobs", "pictures", "**", "*.jpg"), ("logs", "*", "*", "pictures", "*.jpg"), ("report", "*.html"))
    found = [path for parts in wanted for path in store.fs.glob(store.at(*parts))]
    return [posixpath.relpath(p, store.path) for p in sorted(found)]


def _unlabel(store: Store, found: Trace) -> None:
    for at in (LABELS, WRITTEN):
        if not store.exists(*at):
            continue
        lines = store.read_bytes(*at).decode("utf-8", "replace").splitlines()
        kept = [line for line in lines if not any(clip in line for clip in found.clips)]
        store.write_bytes("".join(f"{line}\n" for line in kept).encode(), *at)


def _seen_by(store: Store, found: Trace) -> dict[str, list[str]]:
    """Frozen manifests with its clips, shards with their latents, checkpoints trained on those manifests."""
    clips = pa.array(sorted(found.clips), pa.string())
    manifests = []
    for path in sorted(store.fs.glob(store.at("manifests", "*", "part-00000.parquet"))):
        with store.fs.open(path, "rb") as f:
            if pc.any(pc.is_in(pq.read_table(f, columns=["clip_id"])["clip_id"], value_set=clips)).as_py():
                manifests.append(posixpath.basename(posixpath.dirname(path)))
    shards: set[str] = set()
    if store.fs.exists(store.table_path(LATENTS)):
        rows = store.read(LATENTS, columns=["clip_id", "shard"])
        shards = set(rows.filter(pc.is_in(rows["clip_id"], value_set=clips))["shard"].to_pylist()) - {""}
    steps = 0
    if store.fs.exists(store.table_path(LEDGER)):
        steps = pc.sum(pc.is_in(store.read(LEDGER, columns=["clip_id"])["clip_id"], value_set=clips)).as_py() or 0
    seen = {"manifests": manifests, "latent_shards": sorted(shards), "checkpoints": _weights(store, manifests)}
    if steps:
        seen["ledger"] = [f"{steps} samples of the standing ledger"]
    seen["experiments"] = _of_experiments(store, clips)
    return {k: v for k, v in seen.items() if v}


def _of_experiments(store: Store, clips: pa.Array) -> list[str]:
    """Arms that were trained on its clips, and latents that were made for experiments alone."""
    found = []
    for place, file in (("arms", "ledger.parquet"), ("latents", "*.parquet")):
        for path in sorted(store.fs.glob(store.at("experiments", place, "*", file))):
            with store.fs.open(path, "rb") as f:
                if pc.any(pc.is_in(pq.read_table(f, columns=["clip_id"])["clip_id"], value_set=clips)).as_py():
                    found.append(posixpath.relpath(posixpath.dirname(path), store.path))
    return sorted(set(found))


def _weights(store: Store, manifests: Sequence[str]) -> list[str]:
    """Checkpoints that were trained on one of those manifests, or (the autoencoder) on the root's clip files."""
    found = []
    for path in sorted(store.fs.glob(store.at("tables", "*_checkpoint", "*.parquet"))):
        try:
            with store.fs.open(path, "rb") as f:
                rows = pq.read_table(f, columns=["kind", "digest", "trained_on"]).to_pylist()
        except (pa.ArrowException, OSError) as e:
            raise DamagedTable(f"{path} does not read ({e}); delete it and run its stage again") from e
        for row in rows:
            if row["trained_on"] in manifests or (row["kind"] == "autoencoder" and manifests):
                found.append(f"{row['kind']} {row['digest']}")
    return found


def as_text(found: Trace) -> str:
    """For people."""
    lines = [f"video    {found.video_id}", *(f"source   {s}" for s in found.sources), f"clips    {len(found.clips)}"]
    lines += [f"rows     {count:>6}  {table}" for table, count in sorted(found.rows.items())]
    lines.append(f"files    {len(found.files):>6}  (contact sheets and reports among them)")
    lines += [f"seen by  {json.dumps(kind)}: {name}" for kind, names in found.seen_by.items() for name in names]
    return "\n".join(lines)
