"""Finished checkpoints, named by their content, and what they and snapshots (`snapshots.py`) share.

A checkpoint is a folder `checkpoints/<kind>/<digest>/` with safetensors, config, tokenizer and a card.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from schemas import batches
from schemas.ids import ID_DIGITS
from schemas.store import Store
from trainer.snapshots import Snapshots as Snapshots  # both are used from here
from trainer.snapshots import read_tensors as read_tensors


def run_folder(store: Store, stage: str, key: str) -> Path:
    """Where a run keeps its snapshots, on this machine."""
    return store.on_this_machine("work", stage, key)


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
