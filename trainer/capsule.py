"""A crash capsule: one step that went wrong, with all that is needed to see it again on another machine.

    capsules/step-000000412/
        capsule.json          why, every sample's clip, visit, task, t, caption and loss; the model's config
        packs.safetensors     clean tokens, noise, positions and given tokens of each sample, as they were
        weights.safetensors   the weights that the step began with
        tokenizer.json        where the text encoder is our own

`dailies train replay FOLDER` computes the losses again and says how far they are from those that were recorded, and
which samples are to blame.  Cost: one write of the weights; the oldest are kept, at most `capsules` per run.
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from schemas.errors import ModelError
from schemas.ledger import LedgerRow
from trainer.data import Drawn, batch_of
from trainer.model.config import ModelConfig, TextConfig
from trainer.model.dit import DiT
from trainer.plan import Visit
from trainer.snapshots import read_tensors

_DRAWS = ("noise", "positions", "given")


def write(
    folder: Path,
    *,
    reason: str,
    rows: Sequence[LedgerRow],
    packs: Sequence[tuple[Sequence[Drawn], Sequence[torch.Tensor]]],
    weights: Mapping[str, torch.Tensor],
    model: DiT,
    notes: Mapping[str, Any],
) -> None:
    """Keep a step.

    Args:
        rows: The step's ledger rows, in the order of packs and positions.
        packs: Each pack's visits and their clean tokens.
        notes: What else to say: the step, the gradient norm, the manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, folder / "weights.safetensors")
    tensors, samples = {}, []
    place = iter(rows)
    for number, pack in enumerate(packs):
        for position, (drawn, tokens) in enumerate(zip(*pack)):
            row, name = next(place), f"{number}.{position}"
            tensors[f"{name}.tokens"] = tokens.contiguous()
            tensors |= {f"{name}.{k}": torch.from_numpy(np.ascontiguousarray(getattr(drawn, k))) for k in _DRAWS}
            samples.append({**dataclasses.asdict(row), "visit": drawn.visit.visit, "text": drawn.text})
    save_file(tensors, folder / "packs.safetensors")
    model.text.save(folder)
    record = {
        "reason": reason,
        **notes,
        "model": dataclasses.asdict(model.config),
        "token_channels": model.token_channels,
        "samples": samples,
    }
    staged = folder / "capsule.staged"
    staged.write_text(json.dumps(record, indent=1, sort_keys=True))
    os.replace(staged, folder / "capsule.json")  # last: a capsule with this file is whole


@dataclasses.dataclass(frozen=True, slots=True)
class Replayed:
    """A step, computed again."""

    capsule: Mapping[str, Any]
    losses: tuple[float, ...]
    """In the order of the capsule's samples."""

    @property
    def largest_difference(self) -> float:
        """Largest relative difference to the recorded losses; two that are not finite are equal."""
        pairs = [(s["loss"], loss) for s, loss in zip(self.capsule["samples"], self.losses)]
        return max(
            0.0 if not math.isfinite(a) and not math.isfinite(b) else abs(a - b) / max(abs(a), 1e-12) for a, b in pairs
        )

    @property
    def suspects(self) -> list[str]:
        """Clips whose loss is not finite; where there are none, the one with the largest loss."""
        samples = self.capsule["samples"]
        bad = [s["clip_id"] for s, loss in zip(samples, self.losses) if not math.isfinite(loss)]
        return bad or [samples[max(range(len(samples)), key=lambda i: self.losses[i])]["clip_id"]]


def replay(folder: str | os.PathLike[str], device: str = "cpu") -> Replayed:
    """Compute a capsule's losses again.

    Raises:
        ModelError: If the folder holds no whole capsule.
    """
    path = Path(folder)
    try:
        capsule = json.loads((path / "capsule.json").read_text())
    except (OSError, ValueError) as e:
        raise ModelError(f"{folder} holds no crash capsule ({e}); training names the folder when it writes one") from e
    settings = {**capsule["model"], "text": TextConfig(**capsule["model"]["text"])}
    words = path / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(words)) if words.exists() else None
    model = DiT(ModelConfig(**settings), capsule["token_channels"], tokenizer)
    model.load_state_dict(read_tensors(path / "weights.safetensors"))
    model.to(device).eval()
    tensors = read_tensors(path / "packs.safetensors")
    losses: list[float] = []
    for number in sorted({s["pack"] for s in capsule["samples"]}):
        mine = [s for s in capsule["samples"] if s["pack"] == number]
        names = [f"{number}.{s['position']}" for s in mine]
        drawn = [_drawn(s, {k: tensors[f"{n}.{k}"].numpy() for k in _DRAWS}) for s, n in zip(mine, names)]
        batch = batch_of(drawn, [tensors[f"{n}.tokens"] for n in names], device)
        with torch.no_grad():
            losses.extend(batch.losses(model(batch.pack)).tolist())
    return Replayed(capsule, tuple(losses))


def _drawn(sample: Mapping[str, Any], draws: Mapping[str, np.ndarray]) -> Drawn:
    known = {f.name for f in dataclasses.fields(Drawn)}
    of_row = {k: sample[k] for k in ("task", "caption", "text", "t")}
    rest = dict.fromkeys(known - {*of_row, *draws, "visit"})  # how the task came by what is given
    made: Any = Drawn
    return made(visit=Visit(sample["clip_id"], sample["epoch"], sample["visit"]), **of_row, **draws, **rest)  # type: ignore[no-any-return]
