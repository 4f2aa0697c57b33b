"""Items that hung or killed their workers: written down, and left alone until they or the code change.

    <root>/work/<stage>/quarantine/<item, config and code>.json

An item whose worker died may take minutes and other items' time with it, so the next run gives it its row
without trying; `--force` tries all again.  The record holds the command that shows what happens.
"""

import shlex

from pipelines.running.items import Failure
from schemas.store import Store


def _parts(stage: str, name: str) -> tuple[str, ...]:
    return ("work", stage, "quarantine", f"{name}.json")


def read(store: Store, stage: str, name: str) -> Failure | None:
    """What became of the item earlier, as it was then; None if it is not in quarantine."""
    if not store.exists(*_parts(stage, name)):
        return None
    try:
        known = store.read_json(*_parts(stage, name))
        return Failure(str(known["kind"]), str(known["message"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a damaged record: the item is tried again


def write(store: Store, stage: str, name: str, batch: str | None, item: str, failure: Failure) -> Failure:
    """Write the item down and return its failure with the command that shows it."""
    command = command_for(stage, batch, item)
    record = {"stage": stage, "batch": batch, "item": item, "kind": failure.kind, "message": failure.message}
    store.write_json({**record, "command": command}, *_parts(stage, name))
    return Failure(failure.kind, f"{failure.message}; `{command}` shows it")


def command_for(stage: str, batch: str | None, item: str) -> str:
    """A command, without the root, that runs just this item."""
    words = ["dailies", "stage", stage, *(["--batch", batch] if batch else []), f"--only={item}"]
    return shlex.join(words)
