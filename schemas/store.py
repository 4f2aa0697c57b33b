"""Where every table and blob lives under one root, and how it gets there whole.

    <root>/tables/<table>/batch=<batch>/<table>.parquet      kept per batch of footage
    <root>/tables/<table>/<table>.parquet                    one per root
    <root>/manifests/<digest>/part-00000.parquet             immutable snapshots, `_manifest.json` written last
    <root>/checkpoints/<kind>/<digest>/                      weights as safetensors, config, card
    <root>/blobs/...                                         clip files, latents, samples, reports
    <root>/work/<stage>/<key>.parquet                        finished items of an unfinished stage

One table of one batch is exactly one Parquet file, so a commit is one rename (local) or one PUT (object
store): a reader never sees half a table, a killed writer leaves the previous version, and a plain glob
`<root>/tables/<table>/**/*.parquet` is right at every moment.  What made the file (inputs' digest,
`made_by`, metrics) travels in its footer.  Cost: one extra read of a footer to know whether to compute.

The root is a local path or any fsspec URL (`s3://bucket/run`, `memory://x`).
"""

import dataclasses
import hashlib
import json
import os
import posixpath
import shutil
import tempfile
import uuid
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import DamagedTable, MissingTable, RootError
from schemas.ids import ID_DIGITS, digest
from schemas.table import Table, without_empty_texts

ROW_GROUP_ROWS = 20_000  # DuckDB and pyarrow prune by row group; 1 Mi rows (the default) prunes nothing here
ROW_GROUP_BYTES = 16 << 20
"""A table of pictures has smaller row groups, so that a few pictures are read, and all are written, piece by piece."""
_DIGEST_ROWS = 2_000
_FOOTER = b"dailies"


@dataclasses.dataclass(frozen=True, slots=True)
class Commit:
    """What a table file says of itself."""

    table: str
    batch: str | None
    rows: int
    content: str
    """Digest of the rows: equal rows, equal digest, whatever made them."""
    inputs: str
    """Digest of everything the rows were computed from; equal inputs mean nothing to do."""
    made_by: str
    metrics: Mapping[str, Any]


def content_digest(table: pa.Table) -> str:
    """Digest of a table's schema and rows, independent of chunking and of the file's compression.

    A few rows at a time are gathered into buffers of their own, since a slice's padding, unused bits and offsets
    tell of the table that it was cut from; so a table of pictures is never copied whole.  Texts of records that came
    later and that no row says do not count (`column(later=True)`).
    """
    sha = hashlib.sha256()
    plain = without_empty_texts(table.replace_schema_metadata(None))
    with pa.ipc.new_stream(_Sink(sha), plain.schema) as writer:
        for start in range(0, plain.num_rows, _DIGEST_ROWS):
            some = plain.slice(start, _DIGEST_ROWS)
            writer.write_table(some.take(pa.array(range(some.num_rows))).combine_chunks())
    return sha.hexdigest()[:ID_DIGITS]


class _Sink:
    """A file object that only hashes what is written to it."""

    closed = False

    def __init__(self, sha: Any) -> None:
        self._sha = sha

    def write(self, data: Any) -> int:
        self._sha.update(memoryview(data))
        return len(data)

    def flush(self) -> None: ...

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None: ...


class Store:
    """Tables and blobs under one root.  Cheap to make; holds no state but the root."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        text = os.fspath(root)
        self.fs, path = fsspec.core.url_to_fs(text)
        self.is_local = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))
        self.path = os.path.abspath(path) if self.is_local else path.rstrip("/")
        self.root = self.path if self.is_local else text.rstrip("/")

    def __repr__(self) -> str:
        return f"Store({self.root!r})"

    def create(self) -> "Store":
        """Make the root and prove that it can be written.

        Raises:
            RootError: With the reason in one line.
        """
        probe = self.at(f".write-test-{uuid.uuid4().hex}")
        try:
            self.fs.makedirs(self.path, exist_ok=True)
            with self.fs.open(probe, "wb") as f:
                f.write(b"")
            self.fs.rm_file(probe)
        except OSError as e:
            raise RootError(f"root {self.root} cannot be written: {e}. Name another with --root") from e
        return self

    def at(self, *parts: str) -> str:
        """Full path of something under the root; a part may not climb out of it."""
        path = posixpath.normpath(posixpath.join(self.path, *parts))
        if path != self.path and not path.startswith(self.path.rstrip("/") + "/"):
            raise ValueError(f"{parts} is not under the root {self.root}")
        return path

    def on_this_machine(self, *parts: str) -> Path:
        """A local folder that belongs to this root, for what cannot live in an object store: sockets, locks, secrets,
        snapshots of a running training.  It is the root itself where that is local."""
        home = Path.home() / ".local/state/dailies" / digest(self.root)
        return (Path(self.path) if self.is_local else home).joinpath(*parts)

    # --- tables ------------------------------------------------------------------------------------

    def table_path(self, table: Table, batch: str | None = None) -> str:
        """Where a table (of one batch) is kept."""
        if table.partitioned != (batch is not None):
            kind = "per batch" if table.partitioned else "one per root"
            raise ValueError(f"table `{table.name}` is kept {kind}, got batch={batch!r}")
        folder = [f"batch={batch}"] if batch is not None else []
        return self.at("tables", table.name, *folder, f"{table.name}.parquet")

    def commit(
        self,
        table: Table,
        rows: pa.Table,
        *,
        batch: str | None = None,
        inputs: str = "",
        made_by: str = "",
        metrics: Mapping[str, Any] | None = None,
    ) -> Commit:
        """Replace a table (of one batch) in one step; readers see the old rows or the new, never a mix."""
        rows = table.sorted(table.conform(rows))
        _refuse_repeated_keys(table, rows)
        made = Commit(
            table=table.name,
            batch=batch,
            rows=rows.num_rows,
            content=content_digest(rows),
            inputs=inputs,
            made_by=made_by,
            metrics=dict(metrics or {}),
        )
        footer = {_FOOTER: json.dumps(dataclasses.asdict(made), sort_keys=True).encode()}
        rows = rows.replace_schema_metadata({**(rows.schema.metadata or {}), **footer})
        self._write_parquet(rows, self.table_path(table, batch), scanned=table.scanned)
        return made

    def shrink(self, table: Table, rows: pa.Table, *, batch: str | None = None) -> Commit:
        """Replace a table by some of its own rows, in the schema that it was written with; what made it stays said."""
        before = self.committed(table, batch)
        if before is None:
            raise MissingTable(f"table `{table.name}` not found under {self.root}")
        made = dataclasses.replace(before, rows=rows.num_rows, content=content_digest(rows))
        footer = {_FOOTER: json.dumps(dataclasses.asdict(made), sort_keys=True).encode()}
        rows = rows.replace_schema_metadata(footer)
        self._write_parquet(rows, self.table_path(table, batch), scanned=table.scanned)
        return made

    def committed(self, table: Table, batch: str | None = None) -> Commit | None:
        """What is there now, from the footer alone; None if the table was never made."""
        path = self.table_path(table, batch)
        return self.footer(path) if self.fs.exists(path) else None

    def footer(self, path: str) -> Commit:
        """What a table file says of itself.

        Raises:
            DamagedTable: If it does not say.
        """
        try:
            with self.fs.open(path, "rb") as f:
                metadata = pq.read_metadata(f).metadata or {}
            return Commit(**json.loads(metadata[_FOOTER]))
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as e:
            raise DamagedTable(f"{path} does not read ({e}); delete it and run its stage again") from e

    def read(self, table: Table, *, batch: str | None = None, columns: list[str] | None = None) -> pa.Table:
        """Read one batch, or every batch where none is named.

        Raises:
            MissingTable: If it was never made.
            DamagedTable: If the file does not read.
        """
        batches: list[str | None] = [batch]
        if table.partitioned and batch is None:
            batches = list(self.batches(table))
        paths = [self.table_path(table, b) for b in batches]
        paths = [p for p in paths if self.fs.exists(p)]
        if not paths:
            where = f" of batch {batch}" if batch else ""
            raise MissingTable(f"table `{table.name}`{where} not found under {self.root}: run its stage first")
        return pa.concat_tables([table.grown(self._read_parquet(p, columns)) for p in paths])

    def take(self, table: Table, rows: Sequence[int], column: str, *, batch: str | None = None) -> list[Any]:
        """One column's values in some rows, by their numbers in the file; only row groups that hold any are read."""
        wanted, found, start = sorted(set(rows)), {}, 0
        with self.fs.open(self.table_path(table, batch), "rb") as f:
            file = pq.ParquetFile(f, pre_buffer=False)
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                here = wanted[bisect_left(wanted, start) : bisect_left(wanted, end)]
                if here:
                    values = file.read_row_group(group, columns=[column])[column]
                    found.update({row: values[row - start].as_py() for row in here})
                start = end
        return [found[row] for row in rows]

    def batches(self, table: Table) -> list[str]:
        """Batches that have this table, sorted."""
        found = self.fs.glob(self.at("tables", table.name, "batch=*", f"{table.name}.parquet"))
        return sorted(posixpath.basename(posixpath.dirname(p)).removeprefix("batch=") for p in found)

    # --- finished items of an unfinished stage -----------------------------------------------------

    def part(self, stage: str, key: str) -> str:
        """Path of the finished result of one item (its key names content and config)."""
        return self.at("work", stage, f"{key}.parquet")

    def write_part(self, path: str, rows: pa.Table) -> None:
        self._write_parquet(rows, path)

    def read_part(self, path: str) -> pa.Table | None:
        """The finished item, or None when it is absent or was cut short."""
        if not self.fs.exists(path):
            return None
        try:
            return self._read_parquet(path, None)
        except DamagedTable:
            return None

    # --- blobs -------------------------------------------------------------------------------------

    def write_bytes(self, data: bytes, *parts: str) -> str:
        """Write a blob in one step and return its path relative to the root."""
        path = self.at(*parts)
        self._replace(path, lambda f: f.write(data))
        return posixpath.join(*parts)

    def write_json(self, value: Any, *parts: str) -> str:
        return self.write_bytes(json.dumps(value, indent=1, sort_keys=True).encode(), *parts)

    def read_bytes(self, *parts: str) -> bytes:
        with self.fs.open(self.at(*parts), "rb") as f:
            return f.read()

    def read_json(self, *parts: str) -> Any:
        return json.loads(self.read_bytes(*parts))

    def exists(self, *parts: str) -> bool:
        return bool(self.fs.exists(self.at(*parts)))

    def publish(self, local: str | os.PathLike[str], *parts: str) -> str:
        """Move a finished local file under the root in one step; returns its path relative to the root."""
        path = self.at(*parts)
        if self.is_local:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            staged = f"{path}.{uuid.uuid4().hex}.staged"
            shutil.move(os.fspath(local), staged)
            os.replace(staged, path)
        else:
            self.fs.put_file(os.fspath(local), path)
            os.unlink(local)
        return posixpath.join(*parts)

    def publish_folder(self, local: str | os.PathLike[str], *parts: str) -> str:
        """Move a finished folder under the root; an existing one of the same (content-named) path stays."""
        path = self.at(*parts)
        if self.is_local:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if os.path.isdir(path):
                shutil.rmtree(local)
            else:
                shutil.move(os.fspath(local), path)
        else:
            for file in sorted(Path(local).rglob("*")):
                if file.is_file():
                    self.fs.put_file(str(file), posixpath.join(path, file.relative_to(local).as_posix()))
            shutil.rmtree(local)
        return posixpath.join(*parts)

    def fetch(self, *parts: str) -> str:
        """A local path of a blob or folder: itself under a local root, a cached copy otherwise."""
        path = self.at(*parts)
        if self.is_local:
            if not os.path.exists(path):
                raise MissingTable(f"{path} not found")
            return path
        cache = os.path.join(tempfile.gettempdir(), "dailies-cache", hashlib.sha256(path.encode()).hexdigest()[:16])
        local = os.path.join(cache, posixpath.basename(path))
        if not os.path.exists(local):
            os.makedirs(cache, exist_ok=True)
            self.fs.get(path, local, recursive=self.fs.isdir(path))
        return local

    def scratch(self) -> str:
        """A fresh local folder for work in progress: beside the root when local, so that moves are renames."""
        base = os.path.join(self.path, ".staging") if self.is_local else None
        if base:
            os.makedirs(base, exist_ok=True)
        return tempfile.mkdtemp(dir=base)

    # --- inside ------------------------------------------------------------------------------------

    def _write_parquet(self, rows: pa.Table, path: str, scanned: bool = False) -> None:
        texts = [f.name for f in rows.schema if pa.types.is_string(f.type)]
        how: dict[str, Any] = {"compression": "lz4", "use_dictionary": texts} if scanned else {"compression": "zstd"}

        fit = ROW_GROUP_BYTES * rows.num_rows // max(rows.nbytes, 1)
        each = max(1, min(ROW_GROUP_ROWS, fit))

        def write(f: Any) -> None:
            pq.write_table(rows, f, row_group_size=each, write_page_index=True, **how)

        self._replace(path, write)

    def _replace(self, path: str, write: Any) -> None:
        if not self.is_local:
            with self.fs.open(path, "wb") as f:  # object stores: visible on close, whole
                write(f)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        staged = f"{path}.{uuid.uuid4().hex}.staged"
        try:
            with open(staged, "wb") as f:
                write(f)
                f.flush()
                os.fsync(f.fileno())
            os.replace(staged, path)
        except BaseException:
            if os.path.exists(staged):
                os.unlink(staged)
            raise

    def _read_parquet(self, path: str, columns: Iterable[str] | None) -> pa.Table:
        try:
            with self.fs.open(path, "rb") as f:
                table = pq.ParquetFile(f).read(columns=list(columns) if columns else None)
        except (pa.ArrowException, OSError) as e:
            raise DamagedTable(f"{path} does not read ({e}); delete it and run its stage again") from e
        return table.replace_schema_metadata(None)


def _refuse_repeated_keys(table: Table, rows: pa.Table) -> None:
    keys = rows.select(list(table.key))
    distinct = keys.group_by(list(table.key)).aggregate([]).num_rows
    if distinct != rows.num_rows:
        raise DamagedTable(
            f"table `{table.name}`: {rows.num_rows - distinct} rows repeat the key {table.key}; its stage is wrong"
        )
