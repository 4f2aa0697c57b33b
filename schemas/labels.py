"""Labels: what a person said of a clip, rule by rule.  Appended to one file of JSON lines, and never changed.

    <root>/labels/labels.jsonl    one line per key press; taking one back is a line too
    <root>/labels/design.json     the sample they were asked about: seed and clips per stratum
    <root>/labels/captions.jsonl  captions that a person wrote: clip_id, short, dense, writer; a pair file as it stands

The last line on a (rule, clip) counts.  A line that was cut short by a crash is passed over; the next one begins
on a line of its own.  Appending needs a local root.
"""

import contextlib
import dataclasses
import enum
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from schemas.errors import UsageError
from schemas.store import Store

LABELS = ("labels", "labels.jsonl")
DESIGN = ("labels", "design.json")
WRITTEN = ("labels", "captions.jsonl")


class Label(enum.StrEnum):
    """A person's word; `UNDO` takes the one before back."""

    KEEP = "keep"
    REJECT = "reject"
    SKIP = "skip"
    UNDO = "undo"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """One line."""

    rule: str
    """The rule whose reason was asked about."""
    clip_id: str
    label: str
    """keep: the reason does not hold; reject: it does; skip: cannot say; undo: as if never asked."""
    score: float | None = None
    """The clip's score then."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Which sample is asked about; the same numbers over the same clips give the same sample."""

    seed: int = 0
    per_stratum: int = 12
    """Clips asked about in each stratum: three on either side of a threshold."""

    def __post_init__(self) -> None:
        if self.per_stratum < 1:
            raise ValueError(f"per_stratum must be at least 1, got {self.per_stratum}")


def append(store: Store, line: Labelled) -> None:
    """Write one line down, flushed to the disk.

    Raises:
        UsageError: If the root is not a local folder.
    """
    append_line(store, LABELS, dataclasses.asdict(line))


def append_line(store: Store, at: Sequence[str], line: Mapping[str, Any]) -> None:
    """Append one JSON line to a file of labels, flushed to the disk.

    Raises:
        UsageError: If the root is not a local folder.
    """
    if not store.is_local:
        raise UsageError(f"labels are appended to a file: {store.root} is no local folder")
    path = store.at(*at)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a+b") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        f.seek(0, os.SEEK_END)
        cut = ""
        if f.tell():
            f.seek(-1, os.SEEK_END)
            cut = "" if f.read(1) == b"\n" else "\n"
        f.write((cut + json.dumps(dict(line), sort_keys=True) + "\n").encode())
        f.flush()
        os.fsync(f.fileno())


def lines(store: Store) -> Iterator[Labelled]:
    """All lines in order; damaged ones are passed over."""
    for known in read_lines(store, LABELS):
        with contextlib.suppress(TypeError):
            line = Labelled(**known)
            if line.label in set(Label):
                yield line


def read_lines(store: Store, at: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file of labels in order; damaged lines are passed over."""
    if not store.exists(*at):
        return
    for text in store.read_bytes(*at).decode("utf-8", "replace").splitlines():
        with contextlib.suppress(ValueError):
            if isinstance(found := json.loads(text), dict):
                yield found


def standing_labels(store: Store) -> dict[tuple[str, str], str]:
    """(rule, clip) to keep, reject or skip."""
    found: dict[tuple[str, str], str] = {}
    for line in lines(store):
        found.pop((line.rule, line.clip_id), None)
        if line.label != Label.UNDO:
            found[line.rule, line.clip_id] = line.label
    return found


def design(store: Store) -> Design:
    """The design that the labels were made by; the usual one where none is."""
    return Design(**store.read_json(*DESIGN)) if store.exists(*DESIGN) else Design()
