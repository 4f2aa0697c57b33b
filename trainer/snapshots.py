"""Snapshots of a run in progress: weights, average, optimiser state and the step, in a folder that the inputs name.

A run in one process or of replicas writes one safetensors file; a sharded run a folder of DCP
(`torch.distributed.checkpoint`), each process its own part.  Both hold the same names, and either resumes on any number
of processes, sharded or not.  A snapshot is written under another name and renamed when it is whole; the one before it
stays until the next, so that a kill, a full disk or a file that was damaged later leaves one that loads.  Together with
the plan and counter-based randomness the step is all the state there is.

Cost: one write of four times the weights; `every_s` keeps that below a few percent.
"""

import contextlib
import errno
import os
import re
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from schemas.errors import ModelError
from trainer.parallelize import ALONE, World, like

_NAME = re.compile(r"snapshot-(\d+)\.(safetensors|dcp)")
_KEPT = 2
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Tensors = Mapping[str, torch.Tensor]


class Snapshots:
    """The snapshots of one run."""

    def __init__(self, folder: str | os.PathLike[str], every_s: float, world: World = ALONE) -> None:
        self.folder, self._every_s, self._world, self._last = Path(folder), every_s, world, time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)

    def due(self) -> bool:
        """Whether enough time went by since the last one; when it is taken changes no result."""
        return bool(self._world.agreed(time.monotonic() - self._last >= self._every_s))

    def save(self, step: int, tensors: Tensors) -> None:
        """Keep the state after `step` steps, then drop all but the one before.  Every process of a run calls it.

        Raises:
            ModelError: If the disk is full; the snapshots before are as they were.
        """
        sharded = any(hasattr(v, "device_mesh") for v in tensors.values())
        path = self.folder / f"snapshot-{step:09d}.{'dcp' if sharded else 'safetensors'}"
        staged = path.with_name(path.name + ".staged")
        with self.room(staged):
            if sharded:
                self._save_sharded(staged, tensors)
            elif self._world.first:
                whole = {k: v.detach().contiguous() for k, v in tensors.items()}
                save_file(whole, staged, metadata={"step": str(step)})
        if self._world.first:
            if path.is_dir():
                shutil.rmtree(path)
            os.replace(staged, path)
            for old in self._steps()[_KEPT:]:
                for kind in ("safetensors", "dcp"):
                    _remove(self.folder / f"snapshot-{old:09d}.{kind}")
        self._last = time.monotonic()

    def _save_sharded(self, staged: Path, tensors: Tensors) -> None:
        import torch.distributed as dist
        import torch.distributed.checkpoint as dcp

        if self._world.first:
            _remove(staged)
        dist.barrier()
        dcp.save(dict(tensors), checkpoint_id=staged)
        dist.barrier()

    @contextlib.contextmanager
    def room(self, staged: Path | None = None) -> Iterator[None]:
        """A disk that is full while this is written stops the run with what to do."""
        try:
            yield
        except Exception as e:  # DCP wraps whatever a process raised
            if not _disk_is_full(e):
                raise
            if staged and self._world.first:
                _remove(staged)
            before = self._steps()
            kept = f"the snapshot of step {before[0]} is intact" if before else "there is no earlier snapshot"
            raise ModelError(
                f"the disk is full: no room for a snapshot in {self.folder}; {kept}. "
                "Free some space and run the same command: it goes on from there"
            ) from e

    def restore(self, into: Tensors) -> int:
        """Fill tensors with the newest snapshot that reads; returns its step, or 0 if there is none.

        Raises:
            ModelError: If the snapshot is of another model.
        """
        found = self._world.agreed(next((s for s in self._steps() if self._whole(s)), 0))
        if not found:
            return 0
        path = self.folder / f"snapshot-{found:09d}.safetensors"
        if path.exists():
            read = read_tensors(path)
            _same_names(path, read.keys(), into)
            _same_shapes(path, read, into)
            for name, value in into.items():
                value.copy_(like(read[name], value))
        else:
            import torch.distributed.checkpoint as dcp

            path = path.with_suffix(".dcp")
            _same_names(path, dcp.FileSystemReader(path).read_metadata().state_dict_metadata, into)
            with warnings.catch_warnings():  # that one process reads it is no mistake
                warnings.filterwarnings("ignore", message="torch.distributed is disabled")
                dcp.load(dict(into), checkpoint_id=path)
        return int(found)

    def latest(self) -> tuple[int, dict[str, torch.Tensor]]:
        """The newest snapshot of one file that reads, as it is; step 0 and nothing if there is none."""
        for step in self._steps():
            with contextlib.suppress(ModelError):
                return step, read_tensors(self.folder / f"snapshot-{step:09d}.safetensors")
        return 0, {}

    def clear(self) -> None:
        """The run is finished and published."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _whole(self, step: int) -> bool:
        path = self.folder / f"snapshot-{step:09d}.safetensors"
        if path.exists():
            with contextlib.suppress(OSError, SafetensorError), safe_open(path, framework="pt"):
                return True
        return _whole_folder(path.with_suffix(".dcp"))

    def _steps(self) -> list[int]:
        """Newest first."""
        found = {int(m.group(1)) for p in self.folder.iterdir() if (m := _NAME.fullmatch(p.name))}
        return sorted(found, reverse=True)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file.

    Raises:
        ModelError: If it is missing or cut short.
    """
    try:
        with safe_open(os.fspath(path), framework="pt") as f:
            return {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as e:
        raise ModelError(f"{path} does not read ({e}); delete its folder and run its stage again") from e


def _whole_folder(path: Path) -> bool:
    """Whether a DCP folder has its index, and every part that it speaks of at full length."""
    if not (path / ".metadata").exists():
        return False
    import torch.distributed.checkpoint as dcp

    try:
        parts = dcp.FileSystemReader(path).read_metadata().storage_data
        return all(
            (path / part.relative_path).stat().st_size >= part.offset + part.length for part in (parts or {}).values()
        )
    except Exception:  # an index that is cut short fails in any way that pickle can
        return False


def _same_names(path: Path, found: object, wanted: Tensors) -> None:
    if set(found) != set(wanted):  # type: ignore[call-overload]
        raise ModelError(f"{path} is a snapshot of another model: delete {path.parent} and run the stage again")


def _same_shapes(path: Path, found: Tensors, wanted: Tensors) -> None:
    for name, value in wanted.items():
        if found[name].shape != value.shape:
            raise ModelError(
                f"{path} is a snapshot of another model (`{name}` is {tuple(found[name].shape)} there and "
                f"{tuple(value.shape)} here): delete {path.parent} and run the stage again"
            )


def _disk_is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(word in str(error) for word in ("No space left", "os error 28", "Disk quota exceeded")):
            return True
        failures = getattr(error, "failures", None)  # DCP: what each process raised
        if failures and any(_disk_is_full(f[0] if isinstance(f, tuple) else f) for f in failures.values()):
            return True
        error = error.__cause__ or error.__context__
    return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
