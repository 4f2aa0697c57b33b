"""Latents that must not be trained on: those that hold numbers which are none.

One NaN in a pack makes the whole step's gradient NaN (the step is skipped, `guard.py`), so such a row is left out
before it is planned, with the reason in the dry run and in the table `skipped`.

Cost: one read of all latents at the start.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from schemas.errors import ModelError
from schemas.store import Store


def not_finite(store: Store, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Clip to reason, of rows whose latent (or a view of it) holds a number that is none.

    Raises:
        ModelError: If a shard does not read, or does not hold a clip that it should.
    """
    found: dict[str, str] = {}
    by_shard: dict[str, set[str]] = {}
    for row in rows:
        by_shard.setdefault(row["shard"], set()).add(row["clip_id"])
    for shard, wanted in by_shard.items():
        held = set()
        try:
            with safe_open(store.fetch(shard), framework="pt") as f:
                for name in f.keys():  # noqa: SIM118 - not a mapping
                    clip_id = name.split(" ")[0]
                    held.add(clip_id)
                    if clip_id in wanted and not bool(torch.isfinite(f.get_tensor(name)).all()):
                        found[clip_id] = (
                            "latent holds numbers that are not finite: see the clip and its autoencoder, "
                            "then `dailies stage latents --force`"
                        )
        except (OSError, SafetensorError) as e:
            raise ModelError(f"latents {shard} do not read ({e}); delete the file and run `latents` again") from e
        if wanted - held:
            raise ModelError(f"latents {shard} hold no `{min(wanted - held)}`; delete the file and run `latents` again")
    return found
