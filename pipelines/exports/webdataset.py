"""WebDataset: tars of `<clip_id>.mp4`, `.json` and `.txt`, and an index of them in the layout of `wids`.

Which clip is in which tar follows from the sizes alone, so that an interrupted export goes on with the first tar that
is missing.  Tars have no times, owners or random names in them: equal input, equal bytes.
The JSON is the manifest's row; the text is the caption that was asked for.
Ref: github.com/webdataset/webdataset.  Cost: one copy of the clip files.
"""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

from pipelines.exports.base import ExportConfig, Exported, Format, Sample, Source, write_whole
from pipelines.running.executors import Progress
from schemas.ids import digest

INDEX = "index.json"
_BLOCK = 512


def plan(samples: list[Sample], config: ExportConfig) -> list[list[Sample]]:
    """Clips by tar: each is filled until the next clip would not fit."""
    shards: list[list[Sample]] = []
    used = 0
    for sample in samples:
        takes = sum(_in_tar(size) for size in (sample.size_bytes, len(_json(sample)), len(_text(sample, config))))
        if not shards or used + takes > config.shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(sample)
        used += takes
    return shards


def _in_tar(size: int) -> int:
    return _BLOCK + -(-size // _BLOCK) * _BLOCK


def _json(sample: Sample) -> bytes:
    return json.dumps(sample.row, sort_keys=True, ensure_ascii=False).encode()


def _text(sample: Sample, config: ExportConfig) -> bytes:
    return sample.text(config).encode()


def write(source: Source, to: Path, config: ExportConfig, exported: Exported) -> None:
    """Write what is missing of the tars, then the index."""
    shards = plan(source.samples, config)
    done = _finished(to)
    progress = Progress("webdataset", len(shards), "tar")
    entries = []
    for number, shard in enumerate(shards):
        name = f"clips-{number:06d}.tar"
        holds = digest([(s.name, s.size_bytes, s.row, s.text(config)) for s in shard])
        entry = done.get(name)
        if entry is None or entry["holds"] != holds or _size(to / name) != entry["filesize"]:
            entry = {
                "url": name,
                "nsamples": len(shard),
                "holds": holds,
                **_write_tar(to / name, shard, source, config),
            }
        else:
            exported.reused += 1
        entries.append(entry)
        exported.files += 1
        exported.size_bytes += entry["filesize"]
        _write_index(to, entries, exported)  # after each: a killed export knows what is whole
        progress.advance()
    progress.close()
    _write_index(to, entries, exported)
    exported.read_with = f"webdataset.WebDataset('{to}/clips-{{000000..{max(0, len(shards) - 1):06d}}}.tar')"


def _finished(to: Path) -> dict[str, Any]:
    try:
        return {entry["url"]: entry for entry in json.loads((to / INDEX).read_text())["shardlist"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def _write_index(to: Path, entries: list[Any], exported: Exported) -> None:
    index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": exported.manifest, "shardlist": entries}
    write_whole(to / INDEX, json.dumps(index, indent=1, sort_keys=True).encode())


def _write_tar(path: Path, shard: list[Sample], source: Source, config: ExportConfig) -> dict[str, Any]:
    hidden = path.with_name(f".{path.name}.part")
    with open(hidden, "wb") as raw, tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in shard:
            with open(source.local(sample), "rb") as clip:
                tar.addfile(_member(f"{sample.name}.mp4", sample.size_bytes), clip)
            for suffix, data in (("json", _json(sample)), ("txt", _text(sample, config))):
                tar.addfile(_member(f"{sample.name}.{suffix}", len(data)), io.BytesIO(data))
    sha = hashlib.sha256()
    with open(hidden, "rb") as f:
        while block := f.read(1 << 20):
            sha.update(block)
    os.replace(hidden, path)
    return {"filesize": path.stat().st_size, "sha256": sha.hexdigest()}


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, 0, 0o644
    return info


FORMAT = Format("webdataset", "tars of mp4, json and txt, with an index", write)
