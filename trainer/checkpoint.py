"""Weights on disk: snapshots of a run in progress, and finished checkpoints named by their content.

A snapshot is one safetensors file (weights, average weights, optimiser state; step and notes in its header),
written under another name and renamed, so that a kill leaves the one before.  Together with the plan and
counter-based randomness the step is all the state there is.  A checkpoint is a folder
`checkpoints/<kind>/<digest>/` with safetensors, config, tokenizer and a card.

Cost: one write of three times the weights per snapshot; `every_s` keeps that below a few percent.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from schemas import batches
from schemas.errors import ModelError
from schemas.ids import ID_DIGITS
from schemas.store import Store

_NAME = re.compile(r"snapshot-(\d+)\.safetensors")


class Snapshots:
    """The snapshots of one run, in a folder that the run's inputs name."""

    def __init__(self, folder: str | os.PathLike[str], every_s: float) -> None:
        self.folder, self._every_s, self._last = Path(folder), every_s, time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)

    def due(self) -> bool:
        """Whether enough time went by since the last one; when it is taken changes no result."""
        return time.monotonic() - self._last >= self._every_s

    def save(self, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep the state after `step` steps, then drop the older ones."""
        path = self.folder / f"snapshot-{step:09d}.safetensors"
        staged = path.with_suffix(".staged")
        save_file({k: v.detach().contiguous() for k, v in tensors.items()}, staged, metadata={"step": str(step)})
        os.replace(staged, path)
        for old in self._steps():
            if old < step:
                (self.folder / f"snapshot-{old:09d}.safetensors").unlink(missing_ok=True)
        self._last = time.monotonic()

    def latest(self) -> tuple[int, dict[str, torch.Tensor]]:
        """The newest snapshot that reads, or step 0 and nothing."""
        for step in sorted(self._steps(), reverse=True):
            try:
                return step, read_tensors(self.folder / f"snapshot-{step:09d}.safetensors")
            except ModelError:
                continue
        return 0, {}

    def clear(self) -> None:
        """The run is finished and published."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _steps(self) -> list[int]:
        return [int(m.group(1)) for p in self.folder.iterdir() if (m := _NAME.fullmatch(p.name))]


def run_folder(store: Store, stage: str, key: str) -> Path:
    """Where a run keeps its snapshots, on this machine."""
    return store.on_this_machine("work", stage, key)


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


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Optimiser state by parameter number."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{k}": v for i, values in state.items() for k, v in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """The inverse of `optimizer_tensors`."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".", 2)
            state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def file_digest(path: str | os.PathLike[str], *more: str) -> str:
    """Digest of a file's bytes and of texts that belong to it."""
    sha = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 22):
            sha.update(chunk)
    for text in more:
        sha.update(text.encode())
    return sha.hexdigest()[:ID_DIGITS]


def knows_of(store: Store, names: Iterable[str]) -> str:
    """`synthetic` if every batch of these names is; `footage` otherwise."""
    known = set(batches.names(store))
    kinds = {batches.get(store, n).kind if n in known else batches.FOOTAGE for n in set(names)}
    return "synthetic" if kinds == {batches.SYNTHETIC} else "footage"


def write_card(folder: Path, title: str, facts: Mapping[str, Any], notes: Iterable[str]) -> None:
    """`card.json` for programs and `README.md` for people."""
    (folder / "card.json").write_text(json.dumps(facts, indent=1, sort_keys=True))
    lines = [f"# {title}", "", *notes, "", *(f"- {k}: {v}" for k, v in sorted(facts.items())), ""]
    (folder / "README.md").write_text("\n".join(lines))
