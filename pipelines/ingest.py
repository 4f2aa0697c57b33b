"""Stage `videos`: one row for every file in a batch's folder, whatever it is.

Files are judged by their bytes (see `pipelines.video.source`).  A file whose packets another one has
already is an exact duplicate: the first path in sorted order stays, the others point to it and are never
decoded.  A sidecar `<stem>.json` with `text` and `licence`, or a `<stem>.txt` with the text, travels along, or
else a row of a `.csv` that names the file (see `pipelines.clip.sidecars`).
"""

import dataclasses
import json
import posixpath
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

from pipelines.clip.sidecars import Told, find, read_tables
from pipelines.execute import Context, Failure, Output, Stage, Tables
from pipelines.video.probe import GRACE_S, ProbeConfig, SourceChanged, probe, reading_s
from pipelines.video.source import Listed, is_url, list_files, open_bytes, state, videos_and_sidecars
from schemas.batches import Batch
from schemas.errors import FootageError
from schemas.ids import digest
from schemas.store import Store
from schemas.table import to_rows
from schemas.videos import VIDEOS, Video, VideoStatus

_MAX_SIDECAR = 100_000


def _folder(batch: Batch | None) -> str:
    if batch is None:
        raise ValueError("this stage runs per batch")
    return batch.folder


def listing(store: Store, batch: Batch | None) -> list[tuple[str, int, str]]:
    """What the stage depends on beside its settings: names, sizes and times of the files."""
    return [(f.path, f.size_bytes, f.changed) for f in list_files(_folder(batch))]


def _probe_item(item: Listed, folder: str, config: ProbeConfig) -> Tables:
    row = probe(folder, item.path, item.size_bytes, config)
    if not is_url(folder) and state(folder, item.path) != (item.size_bytes, item.changed):
        raise SourceChanged("the file changed while it was read")
    return {VIDEOS.name: VIDEOS.from_rows([row])}


def _failed(item: Listed, failure: Failure, folder: str) -> Tables:
    row = Video(
        path=item.path,
        folder=folder,
        video_id=digest("unread", item.path, item.size_bytes),
        status=VideoStatus.UNREADABLE,
        reason=f"probing it ended with {failure}",
        size_bytes=item.size_bytes,
    )
    return {VIDEOS.name: VIDEOS.from_rows([row])}


def _videos(context: Context) -> Output:
    folder = _folder(context.batch)
    files, sidecars = videos_and_sidecars(list_files(folder))
    if not files:
        raise FootageError(f"footage folder {folder} holds no file but sidecars and hidden ones")
    config: ProbeConfig = context.settings
    tables = context.each(
        partial(_probe_item, folder=folder, config=config),
        files,
        key=lambda f: digest(folder, f.path, f.size_bytes, f.changed),
        outputs=(VIDEOS,),
        on_error=lambda item, failure: _failed(item, failure, folder),
        unit="file",
        label=lambda f: f.path,
        deadline=lambda f: 2 * reading_s(config, f.size_bytes) + GRACE_S,
    )
    rows = sorted(to_rows(tables[VIDEOS.name], Video), key=lambda v: v.path)
    listed = read_tables(folder, sidecars)
    rows = [_with_sidecar(row, sidecars, listed) for row in mark_duplicates(rows)]
    return Output({VIDEOS.name: VIDEOS.from_rows(rows)}, metrics=_metrics(rows))


def mark_duplicates(rows: list[Video]) -> list[Video]:
    """Point every later file with the same packets to the first; rows come sorted by path."""
    first: dict[str, str] = {}
    marked = []
    for row in rows:
        original = first.setdefault(row.video_id, row.path)
        marked.append(dataclasses.replace(row, duplicate_of=original if original != row.path else None))
    return marked


def _with_sidecar(row: Video, sidecars: dict[str, Listed], listed: Mapping[str, Told]) -> Video:
    stem = posixpath.splitext(row.path)[0]
    for path in (f"{stem}.json", f"{row.path}.json"):
        if path in sidecars:
            known = _read_json(row.folder, path)
            return dataclasses.replace(row, text=_text(known, "text"), licence=_text(known, "licence"))
    if f"{stem}.txt" in sidecars:
        return dataclasses.replace(row, text=_read(row.folder, f"{stem}.txt").strip())
    told = find(listed, row.path)
    return row if told is None else dataclasses.replace(row, text=told.text, licence=told.licence)


def _read(folder: str, path: str) -> str:
    try:
        with open_bytes(folder, path) as f:
            return str(f.read(_MAX_SIDECAR).decode("utf-8", "replace"))
    except OSError:
        return ""


def _read_json(folder: str, path: str) -> dict[str, Any]:
    try:
        value = json.loads(_read(folder, path))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _text(known: dict[str, Any], key: str) -> str:
    value = known.get(key, "")
    return value.strip() if isinstance(value, str) else ""


def _metrics(rows: list[Video]) -> dict[str, Any]:
    status = Counter(str(r.status) for r in rows)
    return {
        "files": len(rows),
        **{f"videos_{name}": status.get(name, 0) for name in VideoStatus},
        "duplicates": sum(r.duplicate_of is not None for r in rows),
        "images": sum(r.is_image for r in rows),
        "hours": round(sum(r.duration_s for r in rows if r.status != VideoStatus.UNREADABLE) / 3600, 4),
    }


VIDEOS_STAGE = Stage(
    name="videos",
    version=3,  # with texts out of tables
    reads=(),
    writes=(VIDEOS,),
    run=_videos,
    settings=lambda config: config.probe,
    outside=listing,
    doc="Probe every file of the batch's folder.",
)
