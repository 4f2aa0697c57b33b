"""New footage becomes a batch: a folder `<root>/incoming/<name>/` with a `_SUCCESS` file in it.

Without the marker a half-copied folder would start.  Each batch starts one run (its name is the run key); a
folder that is already registered, such as the demo's own, is left alone.
"""

import os
import posixpath

import dagster as dg

from orchestration.partitions import BATCHES
from orchestration.resources import Lake
from schemas import batches
from schemas.errors import ConfigError
from schemas.store import Store

MARKER = "_SUCCESS"


def new_batches(store: Store) -> list[batches.Batch]:
    """Folders under `incoming/` that are complete and not yet registered."""
    known = set(batches.names(store))
    found = []
    for marker in sorted(store.fs.glob(store.at("incoming", "*", MARKER))):
        folder = posixpath.dirname(marker)
        name = posixpath.basename(folder)
        if name in known:
            continue
        try:
            batches.check_name(name)
        except ConfigError:
            continue  # it cannot be a partition key; the folder has to be renamed
        full = os.path.abspath(folder) if store.is_local else store.fs.unstrip_protocol(folder)
        found.append(batches.Batch(name=name, folder=full, kind=batches.FOOTAGE))
    return found


@dg.sensor(
    name="incoming_footage",
    job_name="batch",
    minimum_interval_seconds=30,
    description=f"Registers `<root>/incoming/<name>/` once it holds a {MARKER} file, and runs it through curation.",
)
def incoming_footage(context: dg.SensorEvaluationContext, lake: Lake) -> dg.SensorResult | dg.SkipReason:
    store = lake.store()
    found = new_batches(store)
    if not found:
        return dg.SkipReason(f"no new folder with {MARKER} under {store.at('incoming')}")
    for batch in found:
        batches.register(store, batch)
    names = [b.name for b in found]
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=name, partition_key=name) for name in names],
        dynamic_partitions_requests=[BATCHES.build_add_request(names)],
    )
