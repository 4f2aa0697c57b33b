"""How footage is split into runs: one dynamic partition per batch, added when the batch is registered.

Never by video or clip: Dagster's own limit is about 100,000 partitions per asset, and a batch is what people
drop in a folder.  Source: Dagster's documentation of dynamic partitions.
"""

import dagster as dg

BATCHES = dg.DynamicPartitionsDefinition(name="batch")


def add(instance: dg.DagsterInstance, name: str) -> None:
    """Make a batch known to Dagster; adding it again changes nothing."""
    instance.add_dynamic_partitions("batch", [name])
