"""One run of a stage for a batch at a time, with its holder's name.

The lock is the kernel's (`flock`), so that it ends with its holder, however that ends: there is no stale lock.
The file holds who has it, for the one who is refused.  Runs of different stages or batches do not meet.
A root in an object store has no lock: two runs there do the same work twice and commit the same rows.
"""

import contextlib
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import IO

from schemas.errors import RootBusy
from schemas.store import Store

PATIENCE_S = 20.0
"""How long a holder that was told to stop may take to be gone, s."""


@contextlib.contextmanager
def alone(store: Store, stage: str, batch: str | None) -> Iterator[None]:
    """Hold the lock of a stage and batch.

    Raises:
        RootBusy: Names the process that holds it.
    """
    if not store.is_local:
        yield
        return
    path = store.at("work", "locks", f"{stage}-{batch or 'all'}.json")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a+") as f:
        deadline = time.monotonic() + PATIENCE_S
        while not _taken(f):
            if time.monotonic() > deadline:
                raise RootBusy(f"{_what(stage, batch)} under {store.root} is being run by {_holder(path)}")
            time.sleep(0.2)
        f.truncate(0)
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "command": " ".join(sys.argv)[:300]}, f)
        f.flush()
        yield


def _taken(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _what(stage: str, batch: str | None) -> str:
    return f"stage {stage} of batch {batch}" if batch else f"stage {stage}"


def _holder(path: str) -> str:
    try:
        with open(path) as f:
            known = json.load(f)
        return f"process {known['pid']} on {known['host']} ({known['command']})"
    except (OSError, ValueError, KeyError):
        return "another process"
