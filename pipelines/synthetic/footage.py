"""Stage `footage`: render the world of known truth to ordinary files, and write the truth down.

One item per video, so an executor spreads them.  A file appears whole under its name, its sidecar (text,
licence, and what it was made from) after it, `_SUCCESS` last of all; what stands there whole is kept, so a
killed run goes on where it was.  Files of an earlier config are taken away.  Cost: about a CPU second per
video at 144 px, constant memory.
"""

import functools
import json
import os
from typing import Any

import pyarrow as pa

from pipelines.execute import Context, Failure, Output, Stage, Tables
from pipelines.synthetic.defects import damage_bytes
from pipelines.synthetic.edit import CONTAINERS, FootageConfig, ShotPlan, VideoPlan, plan_video, render_video
from pipelines.synthetic.world import WorldConfig, captions, generator
from schemas import batches
from schemas.errors import ConfigError, WorldError
from schemas.store import Store
from schemas.truth import TRUTH_SHOTS, TRUTH_VIDEOS, TruthShot, TruthVideo

LICENCE = "CC0-1.0"
SUCCESS = "_SUCCESS"
_SUFFIXES = {suffix for suffix, _ in CONTAINERS}
_CRF = {"h264": 21, "vp9": 30}


def truth(plan: VideoPlan) -> tuple[list[TruthVideo], list[TruthShot]]:
    """What is known of a file and, if it has one, of its copy."""
    videos, shots = [], []
    for path in (plan.path, plan.copy):
        if path is None:
            continue
        videos.append(
            TruthVideo(
                path=path,
                aspect=plan.aspect,
                width=plan.width,
                height=plan.height,
                fps=float(plan.fps),
                num_frames=plan.num_frames,
                defect=plan.defect if path == plan.path else "duplicate",
                duplicate_of=None if path == plan.path else plan.path,
            )
        )
        for k, shot in enumerate(plan.shots):
            fields = shot.scene.fields()
            short, dense = captions(fields, generator("caption", shot.seed))
            shots.append(
                TruthShot(
                    path=path,
                    shot_index=k,
                    start_frame=shot.start_frame,
                    end_frame=shot.end_frame,
                    cut_in=shot.cut_in,
                    transition_start_frame=shot.start_frame - shot.transition,
                    defect=shot.defect,
                    flash_start_frame=_in_file(shot, 0),
                    flash_end_frame=_in_file(shot, len(shot.flash.light) if shot.flash else 0),
                    duplicate_of=shot.duplicate_of,
                    fields=fields,
                    short=short,
                    dense=dense,
                )
            )
    return videos, shots


def _in_file(shot: ShotPlan, frame: int) -> int | None:
    """A frame of a shot's flash, counted from the start of the file."""
    return shot.start_frame + shot.flash.start + frame if shot.flash else None


def make_video(
    index: int, *, folder: str, batch: str, key: str, config: FootageConfig, world: WorldConfig
) -> dict[str, pa.Table]:
    """Render, encode and describe video `index`; what already stands there whole stays."""
    from pipelines.video.write import write_video

    plan = plan_video(config, world, batch, index)
    videos, shots = truth(plan)
    if not is_whole(folder, plan, key):
        path = os.path.join(folder, plan.path)
        write_video(path, render_video(plan), plan.fps, plan.codec, crf=_CRF[plan.codec], preset="ultrafast")
        with open(path, "rb") as f:
            data = f.read()
        if plan.defect == "corrupt":
            data = damage_bytes(data, config.seed + index)
            _write(path, data)
        if plan.copy:
            _write(os.path.join(folder, plan.copy), data)
        for name in _names(plan):
            note = {"text": shots[0].short, "licence": LICENCE, "made_from": key, "size_bytes": len(data)}
            _write(_sidecar(folder, name), json.dumps(note, indent=1, sort_keys=True).encode())
    return {TRUTH_VIDEOS.name: TRUTH_VIDEOS.from_rows(videos), TRUTH_SHOTS.name: TRUTH_SHOTS.from_rows(shots)}


def is_whole(folder: str, plan: VideoPlan, key: str) -> bool:
    """The file (and its copy) stand there as this config makes them."""
    for name in _names(plan):
        try:
            with open(_sidecar(folder, name), "rb") as f:
                note = json.load(f)
            if note["made_from"] != key or note["size_bytes"] != os.path.getsize(os.path.join(folder, name)):
                return False
        except (OSError, ValueError, KeyError):
            return False
    return True


def _names(plan: VideoPlan) -> list[str]:
    return [plan.path] + ([plan.copy] if plan.copy else [])


def _sidecar(folder: str, name: str) -> str:
    return os.path.join(folder, os.path.splitext(name)[0] + ".json")


def _write(path: str, data: bytes) -> None:
    hidden = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}.part")
    with open(hidden, "wb") as f:
        f.write(data)
    os.replace(hidden, path)


def _clear(folder: str, keep: set[str]) -> None:
    """Take away what an earlier config rendered here, and what a killed writer left; nothing else."""
    names = sorted(os.listdir(folder))
    by_stem: dict[str, list[str]] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix in _SUFFIXES:
            by_stem.setdefault(stem, []).append(name)
        if name.startswith(".v") and suffix == ".part":
            os.unlink(os.path.join(folder, name))
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix != ".json" or (by_stem.get(stem) and keep.issuperset(by_stem[stem])):
            continue
        with open(os.path.join(folder, name), "rb") as f:
            if b'"made_from"' not in f.read():
                continue
        stale = [n for n in by_stem.get(stem, []) if n not in keep]
        if len(stale) == len(by_stem.get(stem, [])):
            stale.append(name)
        for gone in stale:
            os.unlink(os.path.join(folder, gone))


def run(context: Context) -> Output:
    """Make every file of the batch and return its truth."""
    batch = context.batch
    if batch is None or batch.kind != batches.SYNTHETIC:
        note = {"note": "this batch is footage of yours; nothing was rendered"}
        return Output(tables={t.name: t.empty() for t in (TRUTH_VIDEOS, TRUTH_SHOTS)}, metrics=note)
    if "://" in batch.folder:
        raise ConfigError(f"synthetic footage is rendered to a local folder, got {batch.folder}")
    world, config = context.settings
    os.makedirs(batch.folder, exist_ok=True)
    key = context.made_by
    make = functools.partial(make_video, folder=batch.folder, batch=batch.name, key=key, config=config, world=world)
    plans = functools.partial(plan_video, config, world, batch.name)
    absent = [i for i in range(config.total) if not is_whole(batch.folder, plans(i), key)]
    marker = os.path.join(batch.folder, SUCCESS)
    if absent and os.path.exists(marker):
        os.unlink(marker)
    failures: list[str] = []
    rows = context.each(
        make,
        range(config.total),
        key=lambda i: f"{batch.name}/{i}",
        outputs=(TRUTH_VIDEOS, TRUTH_SHOTS),
        on_error=lambda i, failure: _failed(failures, i, failure),
        unit="video",
    )
    lost = [i for i in absent if not is_whole(batch.folder, plans(i), key)]  # described earlier, deleted since
    for position, result, _ in context.executor.map(make, lost):
        if isinstance(result, Failure):
            _failed(failures, lost[position], result)
    if failures:
        raise WorldError(f"{len(failures)} videos could not be rendered to {batch.folder}: {failures[0]}")
    _clear(batch.folder, {str(p) for p in rows[TRUTH_VIDEOS.name]["path"].to_pylist()})
    _write(marker, b"")
    return Output(tables=rows, metrics=_metrics(rows))


def _failed(failures: list[str], index: int, failure: Failure) -> Tables:
    failures.append(f"video {index}: {failure}")
    return {t.name: t.empty() for t in (TRUTH_VIDEOS, TRUTH_SHOTS)}


def _metrics(rows: Tables) -> dict[str, Any]:
    videos, shots = rows[TRUTH_VIDEOS.name], rows[TRUTH_SHOTS.name]
    seconds = sum(n / f for n, f in zip(videos["num_frames"].to_pylist(), videos["fps"].to_pylist()))
    planted = sum(d != "none" for d in shots["defect"].to_pylist())
    return {
        "videos": videos.num_rows,
        "shots": shots.num_rows,
        "minutes": round(seconds / 60, 2),
        "planted_shot_defects": planted,
        "flashes": shots.num_rows - shots["flash_start_frame"].null_count,
    }


def where(store: Store, batch: batches.Batch | None) -> Any:
    """The folder; and whether it lost its files since its truth was written, so that they are rendered again."""
    if batch is None or batch.kind != batches.SYNTHETIC:
        return None
    finished = os.path.exists(os.path.join(batch.folder, SUCCESS))
    described = store.exists("tables", TRUTH_VIDEOS.name, f"batch={batch.name}", f"{TRUTH_VIDEOS.name}.parquet")
    return {"folder": batch.folder, "lost": described and not finished}


FOOTAGE = Stage(
    name="footage",
    version=3,
    reads=(),
    writes=(TRUTH_VIDEOS, TRUTH_SHOTS),
    run=run,
    settings=lambda c: (c.synthetic.world, c.synthetic.footage),
    outside=where,
    doc="Renders a synthetic batch to files, and writes down its truth.",
)
