"""Batches: groups of videos that are processed together (a Dagster partition).

A batch is a folder of footage and a name, kept in `<root>/batches/<name>.json`.  A name becomes a folder
and a partition key, so it is held to letters, digits, dot, dash and underscore.
"""

import dataclasses
import posixpath
import re

from schemas.errors import ConfigError, FootageError
from schemas.store import Store

SYNTHETIC = "synthetic"
FOOTAGE = "footage"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One group of source files."""

    name: str
    folder: str
    """Absolute folder (or URL) that holds the files, searched recursively."""
    kind: str
    """`synthetic` when we rendered it (its truth is known), `footage` otherwise."""


def beyond(knows: str, batch: Batch | None) -> bool:
    """Whether a model's words mean nothing for a batch: it knows our rendered world alone, and this is real footage."""
    return knows == SYNTHETIC and batch is not None and batch.kind != SYNTHETIC


def check_name(name: str) -> str:
    """Return the name, or say what a batch may be called."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"a batch name is made of letters, digits, '.', '_' and '-', got `{name}`")
    return name


def register(store: Store, batch: Batch) -> Batch:
    """Write the batch down; registering the same one again changes nothing."""
    check_name(batch.name)
    if batch.kind not in (SYNTHETIC, FOOTAGE):
        raise ConfigError(f"a batch is `{SYNTHETIC}` or `{FOOTAGE}`, got `{batch.kind}`")
    store.write_json(dataclasses.asdict(batch), "batches", f"{batch.name}.json")
    return batch


def get(store: Store, name: str) -> Batch:
    """The batch of that name.

    Raises:
        FootageError: If it was never registered; names those that were.
    """
    if not store.exists("batches", f"{check_name(name)}.json"):
        known = ", ".join(names(store)) or "none"
        raise FootageError(
            f"no batch `{name}` under {store.root}; known: {known}. Add one with `dailies curate FOLDER`"
        )
    return Batch(**store.read_json("batches", f"{name}.json"))


def names(store: Store) -> list[str]:
    """Names of all registered batches, sorted."""
    found = store.fs.glob(store.at("batches", "*.json"))
    return sorted(posixpath.basename(p).removesuffix(".json") for p in found)
