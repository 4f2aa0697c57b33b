"""Reads a file of (video or clip, short, dense) rows, and says of every row what it is or what is wrong with it.

Parquet, CSV and JSON lines, by suffix.  Columns: `video` (a path, relative ones from the file's folder, or a URL) or
`clip_id` (a clip of the root); `short` and `dense`; optionally `start` and `end` in seconds, `fields` (a record, or one
as JSON), `split` (train or held_out), `source` and `writer`.  Other columns are passed over.

What is wrong with the file (it is missing, of another kind, has no text columns) is an error; what is wrong with a row
leaves the row out, with the column and the reason.  A row without a split is held out or not by a hash of its video,
so that two clips of one video never stand on both sides.  Cost: 30 us a row.
"""

import csv
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.captions import Fields, Listed, fields_of
from schemas.errors import UsageError
from schemas.ids import digest
from schemas.language import Unparsable, parse

HELD_OUT_SHARE = 0.1
SPLITS = ("train", "held_out")
_TEXTS = ("short", "dense")


class Wrong(ValueError):
    """A row gives no pair; says which column is at fault."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column, self.reason = column, reason


def read_rows(path: str) -> list[dict[str, Any]]:
    """The rows of a pair file as they stand.

    Raises:
        UsageError: If it cannot be read as such a file; names it and what is wrong.
    """
    suffix = Path(path).suffix.lower()
    readers = {".parquet": _parquet, ".csv": _csv, ".jsonl": _json_lines}
    if suffix not in readers:
        raise UsageError(f"pair file {path}: its name ends in none of {', '.join(readers)}")
    try:
        rows = readers[suffix](path)
    except OSError as e:
        raise UsageError(f"pair file {path} does not open: {e.strerror or e}") from e
    except (pa.ArrowException, csv.Error, UnicodeDecodeError) as e:
        raise UsageError(f"pair file {path} does not read: {e}") from e
    if not rows:
        raise UsageError(f"pair file {path} has no rows")
    columns = {name for row in rows for name in row}
    missing = [name for name in _TEXTS if name not in columns]
    if missing:
        have = ", ".join(sorted(columns)) or "none"
        raise UsageError(f"pair file {path} has no column `{missing[0]}`; its columns: {have}")
    if not columns & {"video", "clip_id"}:
        raise UsageError(
            f"pair file {path} needs a column `video` or `clip_id`; its columns: {', '.join(sorted(columns))}"
        )
    return rows


def _parquet(path: str) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def _csv(path: str) -> list[dict[str, Any]]:
    with open(path, newline="", encoding="utf-8-sig") as f:
        return [{k: v for k, v in row.items() if k} for row in csv.DictReader(f)]


def _json_lines(path: str) -> list[dict[str, Any]]:
    rows = []
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as e:
                raise UsageError(f"pair file {path}, line {number} is no JSON: {e}") from e
            if not isinstance(row, dict):
                raise UsageError(f"pair file {path}, line {number} is no JSON object")
            rows.append(row)
    return rows


def check_rows(path: str, rows: list[dict[str, Any]], source: str) -> Iterator[Listed]:
    """Every row as `Listed`, its texts and times checked; what is wrong is said in it.

    Args:
        source: What rows that do not name a source come from.
    """
    name, folder = path, os.path.dirname(os.path.abspath(path))
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        try:
            listed = _check(name, number, row, folder, source)
            place = digest(listed.video, listed.clip_id, listed.start_s, listed.end_s, listed.short, listed.dense)
            if place in seen:
                raise Wrong("clip_id" if listed.clip_id else "video", f"repeats row {seen[place]}")
            seen[place] = number
            yield listed
        except Wrong as e:
            yield Listed(file=name, row=number, column_name=e.column, reason=e.reason)


def _check(name: str, number: int, row: Mapping[str, Any], folder: str, source: str) -> Listed:
    short, dense = (_text(row, kind, required=True) for kind in _TEXTS)
    clip_id = _text(row, "clip_id")
    video = "" if clip_id else _video(row, folder)
    start, end = _seconds(row, "start"), _seconds(row, "end")
    if end is not None and end <= (start or 0.0):
        raise Wrong("end", f"the clip ends at {end:g} s and begins at {start or 0.0:g} s")
    return Listed(
        file=name,
        row=number,
        video=video,
        clip_id=clip_id,
        start_s=start or 0.0,
        end_s=end,
        fields=_fields(row, dense),
        split=_split(row) or (split_of(video) if video else ""),
        source=_text(row, "source") or source,
        writer=_text(row, "writer"),
        short=short,
        dense=dense,
    )


def _text(row: Mapping[str, Any], column: str, *, required: bool = False) -> str:
    value = row.get(column)
    if value is None:
        value = ""
    if not isinstance(value, str):
        raise Wrong(column, f"a text is wanted, got {type(value).__name__}")
    plain = " ".join(value.split())
    if required and not plain:
        raise Wrong(column, "the text is empty")
    return plain


def _video(row: Mapping[str, Any], folder: str) -> str:
    given = row.get("video")
    if not isinstance(given, str) or not given.strip():
        raise Wrong("video" if "video" in row else "clip_id", "neither a video nor a clip is named")
    if "://" in given:
        return given
    path = os.path.normpath(os.path.join(folder, given))
    if not os.path.isfile(path):
        raise Wrong("video", f"no file {path}")
    return path


def _seconds(row: Mapping[str, Any], column: str) -> float | None:
    value = row.get(column, row.get(f"{column}_s"))
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        raise Wrong(column, f"seconds are wanted, got `{value}`") from None
    if not math.isfinite(seconds) or seconds < 0:
        raise Wrong(column, f"seconds from 0 on are wanted, got `{value}`")
    return seconds


def _split(row: Mapping[str, Any]) -> str:
    split = _text(row, "split")
    if split and split not in SPLITS:
        raise Wrong("split", f"train or held_out is wanted, got `{split}`")
    return split


def split_of(video: str) -> str:
    """The side that all clips of a video stand on."""
    return SPLITS[int(digest("split", video)[:8], 16) / 16**8 < HELD_OUT_SHARE]


def _fields(row: Mapping[str, Any], dense: str) -> Fields | None:
    """The record that is given, or else that the dense caption reads as."""
    given = row.get("fields")
    if given in (None, ""):
        try:
            return parse(dense)
        except Unparsable:
            return None
    try:
        said = json.loads(given) if isinstance(given, str) else dict(given)
        return fields_of(said)
    except (TypeError, ValueError, KeyError) as e:
        raise Wrong("fields", f"no record can be read from it: {e}") from e
