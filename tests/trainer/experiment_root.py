"""The small world with an autoencoder, latents and texts of its sources; not a test."""

from pathlib import Path

import pyarrow as pa

from pipelines.execute import run_stage
from schemas.manifest import MANIFEST
from schemas.store import Store
from tests.trainer.small_world import make_root
from trainer.recipes import tiny
from trainer.stages import STAGES


def make(folder: Path, clips: int = 8) -> Store:
    """Six or more clips to train on, each with a human text."""
    store = make_root(folder, clips)
    rows = [{**r, "human": f"Square number {i}."} for i, r in enumerate(store.read(MANIFEST).to_pylist())]
    store.commit(MANIFEST, pa.Table.from_pylist(rows, schema=MANIFEST.schema), inputs="test")
    for stage in STAGES[:2]:
        run_stage(stage, store, tiny())
    return store
