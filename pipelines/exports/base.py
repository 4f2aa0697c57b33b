"""What every export shares: the clips of a manifest, their texts, and files that appear whole.

A sample is one row of a frozen manifest and its clip file.  A clip whose file is gone or has another length than
when the export began is left out and named with the reason; nothing else is.  Where a file system can, a clip
is linked, not copied.  The same manifest and settings give the same bytes, in any order of interruptions;
only Open-Sora's table names the folder that it lies in, because its reader wants full paths.
"""

import dataclasses
import errno
import json
import os
import posixpath
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.running.executors import Progress
from schemas.errors import UsageError
from schemas.ids import digest
from schemas.manifest import MANIFEST
from schemas.store import Store

TEXTS = ("dense", "short")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """How a manifest is written for others."""

    text: str = "dense"
    """Which caption is the text of a clip: dense or short."""
    shard_bytes: int = 500_000_000
    """WebDataset: a tar ends before it would be larger, byte; one clip always fits."""
    copy: bool = False
    """Copy clip files where they could be linked."""

    def __post_init__(self) -> None:
        if self.text not in TEXTS:
            raise ValueError(f"text is one of {', '.join(TEXTS)}, got `{self.text}`")
        if self.shard_bytes < 1:
            raise ValueError(f"shard_bytes must be positive, got {self.shard_bytes}")


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One clip of the manifest."""

    row: dict[str, Any]
    """The manifest's row; scores are a mapping, and the source is a file name without its folder."""
    size_bytes: int

    @property
    def name(self) -> str:
        return str(self.row["clip_id"])

    def text(self, config: ExportConfig) -> str:
        return str(self.row[config.text])


@dataclasses.dataclass(slots=True)
class Exported:
    """What an export wrote."""

    format: str
    manifest: str
    folder: str
    clips: int = 0
    files: int = 0
    reused: int = 0
    """Files that were there already from an earlier run."""
    size_bytes: int = 0
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    """Clip id to reason."""
    read_with: str = ""
    """A line of Python that reads it."""


Write = Callable[["Source", Path, ExportConfig, Exported], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Format:
    """One way to write a manifest."""

    name: str
    doc: str
    write: Write


@dataclasses.dataclass(slots=True)
class Source:
    """The clips of one manifest, in order of their ids."""

    store: Store
    manifest: str
    samples: list[Sample]

    def each(self, label: str) -> Iterator[Sample]:
        """Samples with a progress line."""
        progress = Progress(label, len(self.samples), "clip")
        for sample in self.samples:
            yield sample
            progress.advance()
        progress.close()

    def local(self, sample: Sample) -> str:
        """The clip's file on this machine."""
        return self.store.fetch(*str(sample.row["path"]).split("/"))


def manifest_name(store: Store, wanted: str | None) -> str:
    """The digest of a frozen manifest: of that (beginning of a) digest, or of the current one.

    Raises:
        UsageError: If there is none, or more than one begins so.
    """
    known = sorted(
        posixpath.basename(posixpath.dirname(p)) for p in store.fs.glob(store.at("manifests", "*", "_manifest.json"))
    )
    if not known:
        raise UsageError(f"root {store.root} has no manifest yet: freeze one with `dailies manifest freeze`")
    if wanted in (None, "current", "manifest"):
        rows = store.read(MANIFEST, columns=["manifest"]) if store.committed(MANIFEST) else None
        if rows is not None and rows.num_rows:
            return str(rows["manifest"][0].as_py())
        raise UsageError("the current manifest holds no clip; name another with --manifest")
    found = [name for name in known if name.startswith(str(wanted))]
    if len(found) != 1:
        what = "no manifest begins" if not found else f"{len(found)} manifests begin"
        raise UsageError(f"{what} with `{wanted}`; `dailies manifest list` names them")
    return found[0]


def read(store: Store, manifest: str, exported: Exported) -> Source:
    """The manifest's clips whose files are there; the others are named in `exported.left_out`."""
    with store.fs.open(store.at("manifests", manifest, "part-00000.parquet"), "rb") as f:
        rows = pq.read_table(f).sort_by("clip_id").to_pylist()
    samples = []
    for row in rows:
        path = store.at(*str(row["path"]).split("/"))
        if not row["path"] or not store.fs.exists(path):
            exported.left_out[row["clip_id"]] = f"its clip file {row['path'] or '(none)'} is not there"
            continue
        row = {**row, "scores": json.loads(row["scores"] or "{}"), "source": posixpath.basename(row["source"])}
        samples.append(Sample(row, int(store.fs.size(path))))
    return Source(store, manifest, samples)


def export(format_: Format, store: Store, wanted: str | None, folder: str, config: ExportConfig) -> Exported:
    """Write a manifest in one format; what an earlier run of the same export finished is kept.

    Raises:
        UsageError: If there is no such manifest, or the folder holds another export.
    """
    to = Path(folder).absolute()
    exported = Exported(format_.name, manifest_name(store, wanted), str(to))
    source = read(store, exported.manifest, exported)
    settings = (config.text, config.shard_bytes if format_.name == "webdataset" else None)
    named = digest(format_.name, exported.manifest, settings, [(s.name, s.size_bytes) for s in source.samples])
    _claim(to, named)
    format_.write(source, to, config, exported)
    exported.clips = len(source.samples)
    left_out = [{"clip_id": k, "reason": v} for k, v in sorted(exported.left_out.items())]
    write_whole(to / "left_out.json", json.dumps(left_out, indent=1).encode())
    return exported


def _claim(to: Path, named: str) -> None:
    """A folder holds one export: files of two manifests must not mix."""
    mark = to / ".export"
    if mark.exists() and mark.read_text() != named:
        raise UsageError(f"{to} holds another export (other clips, text or format); name an empty folder with --to")
    if not mark.exists() and to.is_dir() and any(to.iterdir()):
        raise UsageError(f"{to} is not empty, and was not made by this command; name an empty folder with --to")
    try:
        to.mkdir(parents=True, exist_ok=True)
        write_whole(mark, named.encode())
    except OSError as e:
        raise UsageError(f"{to} cannot be written: {e.strerror}; name another with --to") from e


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.part")
    hidden.write_bytes(data)
    os.replace(hidden, path)


def place(source: Source, sample: Sample, path: Path, config: ExportConfig, exported: Exported) -> None:
    """Put a clip's file at its place, as a link where that works."""
    exported.files += 1
    exported.size_bytes += sample.size_bytes
    if path.exists() and path.stat().st_size == sample.size_bytes:
        exported.reused += 1
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.part")
    hidden.unlink(missing_ok=True)
    local = source.local(sample)
    try:
        if config.copy or not source.store.is_local:  # a fetched copy is a cache that others may clear
            raise OSError(errno.EXDEV, "not linked")
        os.link(local, hidden)
    except OSError:
        shutil.copyfile(local, hidden)
    os.replace(hidden, path)
