"""`dailies captioner evaluate`: the captioner in use, on pairs that it was not trained on, counted claim by claim.

Half of the held-out pairs show a (colour, shape, motion) that no training pair shows, so the rates say whether it
composes.  The same table can be had from the stage's metrics; here it is measured again, from the checkpoint on disk.
"""

from typing import Any

import torch

from captioner import evaluate
from captioner.stages import pair_of
from captioner.train.checkpoint import KIND, Loaded, load_checkpoint
from captioner.train.data import Example, example, slot_values
from captioner.train.train import claims_of
from schemas.captions import PAIRS, Pair
from schemas.checkpoints import CAPTIONER_CHECKPOINT, Checkpoint
from schemas.errors import ConfigError, MissingTable
from schemas.store import Store
from schemas.table import to_rows


def examine(store: Store, *, threads: int = 1) -> dict[str, Any]:
    """Caption every held-out pair densely and count its claims.

    Returns:
        The keys of `evaluate.report`, and `captioner`, the digest of the weights.

    Raises:
        MissingTable: If no captioner was trained under this root.
        ConfigError: If the trained checkpoint is an adapter, or no pair is held out.
    """
    row, loaded, pairs = trained(store)
    slots = slot_values([p.fields for p in pairs])
    examples: list[Example] = [example(p, loaded.frames, loaded.tokenizer, slots) for p in pairs]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        counted = claims_of(loaded.net, loaded.tokenizer, examples)
    finally:
        torch.set_num_threads(before)
    return {**evaluate.report(counted), "captioner": row.digest}


def trained(store: Store) -> tuple[Checkpoint, Loaded, list[Pair]]:
    """The captioner that was trained here, and the pairs it was not trained on.

    Raises:
        MissingTable: If no captioner was trained under this root.
        ConfigError: If the trained checkpoint is an adapter, or no pair is held out.
    """
    if store.committed(CAPTIONER_CHECKPOINT) is None:
        raise MissingTable(f"no captioner was trained under {store.root}: run `dailies captioner train` first")
    row = to_rows(store.read(CAPTIONER_CHECKPOINT), Checkpoint)[0]
    if row.kind != KIND:
        raise ConfigError(f"the trained checkpoint is a `{row.kind}`; only our own captioner is examined on its pairs")
    loaded = load_checkpoint(store.fetch(row.path))
    pairs = [pair_of(r) for r in store.read(PAIRS).to_pylist() if r["split"] == "held_out"]
    if not pairs:
        raise ConfigError("no pair is held out: raise `curation.synthetic.pairs.held_out`")
    return row, loaded, pairs
