"""Texts that came with footage in a table: a `.csv` beside it with a column of file names and one of texts.

Open-Sora's CSV (`path,text,...`) and Panda-70M's kin read as they are.  A row names its file by path, by name or
without the extension; a name that two files of the folder share tells nothing, so the nearer table wins and then
the first row.  A table that lacks either column is no sidecar and is left alone.
Cost: one read per table, at most 64 MB of each.
"""

import csv
import dataclasses
import io
import posixpath
from collections.abc import Mapping

from pipelines.video.source import Listed, open_bytes

_FILE = ("path", "file", "file_name", "filename", "video", "video_path", "videoid")
_TEXT = ("text", "caption", "prompt", "description", "title")
_LICENCE = ("licence", "license")
_MOST_BYTES = 64 << 20
_MOST_TEXT = 20_000


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """What a row says of its file."""

    text: str
    licence: str


def read_tables(folder: str, sidecars: Mapping[str, Listed]) -> dict[str, Told]:
    """What the tables of a folder say, by path below the folder, with and without extension."""
    found: dict[str, Told] = {}
    tables = sorted((p for p in sidecars if p.lower().endswith(".csv")), key=lambda p: (-p.count("/"), p))
    for path in tables:
        for name, told in _rows(folder, path):
            found.setdefault(posixpath.normpath(posixpath.join(posixpath.dirname(path), name)), told)
    return found


def find(listed: Mapping[str, Told], path: str) -> Told | None:
    """What is said of a file: by its path, or by its path without extension."""
    return listed.get(path) or listed.get(posixpath.splitext(path)[0])


def _rows(folder: str, path: str) -> list[tuple[str, Told]]:
    try:
        with open_bytes(folder, path) as f:
            text = f.read(_MOST_BYTES).decode("utf-8-sig", "replace")
        rows = csv.DictReader(io.StringIO(text))
        columns = {str(name).strip().lower(): name for name in rows.fieldnames or ()}
        name, said = _first(columns, _FILE), _first(columns, _TEXT)
        if name is None or said is None:
            return []
        licence = _first(columns, _LICENCE)
        return [
            (_relative(row[name]), Told((row[said] or "").strip()[:_MOST_TEXT], (row.get(licence or "") or "").strip()))
            for row in rows
            if row[name]
        ]
    except (OSError, csv.Error):
        return []


def _first(columns: Mapping[str, str], wanted: tuple[str, ...]) -> str | None:
    return next((columns[w] for w in wanted if w in columns), None)


def _relative(name: str) -> str:
    """A path as the folder has it; of an absolute one its last part."""
    name = name.strip().replace("\\", "/")
    return posixpath.basename(name) if name.startswith("/") or ":" in name else name
