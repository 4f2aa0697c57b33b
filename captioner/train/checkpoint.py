"""A captioner on disk: safetensors, tokenizer, config and a card, in a folder named by the digest of the weights.

Only safetensors and JSON are read, so loading a checkpoint runs no code of its author.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_model, save_model

from captioner.frames import FrameSpec
from captioner.train.model import Captioner, describe, rebuild
from captioner.train.tokenizer import load_tokenizer
from schemas.errors import ModelError
from schemas.ids import digest
from schemas.store import Store

KIND = "captioner"
FORMAT = 3
"""Raise when a checkpoint written before can no longer be read.  2: heads that tell the LM (`spelled`).
3: what it is sure of."""
_WEIGHTS, _SHORT, _CONFIG = "model.safetensors", "short.safetensors", "config.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """A captioner that can write."""

    net: Captioner
    tokenizer: Any
    frames: FrameSpec
    digest: str
    short_net: Captioner | None = None
    """Weights of their own for short captions, where there are such."""

    def writer(self, kind: str) -> Captioner:
        """Who writes captions of a kind."""
        return self.short_net if kind == "short" and self.short_net is not None else self.net


def save_checkpoint(
    store: Store,
    net: Captioner,
    tokenizer: Any,
    frames: FrameSpec,
    card: Mapping[str, Any],
    short_net: Captioner | None = None,
) -> tuple[str, str]:
    """Write a checkpoint under the root; returns the digest of its weights and its folder, relative to the root."""
    local = Path(store.scratch()) / "checkpoint"
    local.mkdir()
    save_model(net, str(local / _WEIGHTS))
    if short_net is not None:
        save_model(short_net, str(local / _SHORT))
    name = _digest(local)
    tokenizer.save_pretrained(str(local))
    config = {"kind": KIND, "format": FORMAT, "digest": name, "frames": dataclasses.asdict(frames), **describe(net)}
    (local / _CONFIG).write_text(json.dumps(config, indent=1))  # unsorted: the order of slots is that of the heads
    (local / "README.md").write_text(_card(name, card))
    path = store.publish_folder(local, "checkpoints", KIND, name)
    if local.parent.exists():
        local.parent.rmdir()
    return name, path


def load_checkpoint(folder: str) -> Loaded:
    """Read a checkpoint back, in evaluation mode.

    Raises:
        ModelError: If it is missing, cut short, or not the one its config names.
    """
    path = Path(folder)
    try:
        config = json.loads((path / _CONFIG).read_text())
        if config.get("kind") != KIND:
            raise ModelError(f"{folder} holds a `{config.get('kind')}`, not a captioner")
        if config.get("format", 1) != FORMAT:
            raise ModelError(
                f"captioner checkpoint {folder} has format {config.get('format', 1)}, this version reads {FORMAT}: "
                "run stage `captioner_model` again, or use the version that wrote it"
            )
        found = _digest(path)
        if found != config["digest"]:
            raise ModelError(f"{path / _WEIGHTS} has digest {found}, expected {config['digest']}: train it again")
        net = rebuild(config)
        load_model(net, str(path / _WEIGHTS))
        short_net = None
        if (path / _SHORT).exists():
            short_net = rebuild(config)
            load_model(short_net, str(path / _SHORT))
        tokenizer = load_tokenizer(folder)
        frames = FrameSpec(**config["frames"])
    except (TypeError, RuntimeError, AttributeError) as e:  # settings or weights that this version does not know
        raise ModelError(
            f"captioner checkpoint {folder} was written by another version ({' '.join(str(e).split())[:300]}): "
            "run stage `captioner_model` again, or use the version that wrote it"
        ) from e
    except (OSError, KeyError, ValueError, SafetensorError) as e:
        raise ModelError(f"captioner checkpoint {folder} does not load ({e}): run stage `captioner_model` again") from e
    return Loaded(net.eval(), tokenizer, frames, found, short_net.eval() if short_net else None)


def _digest(folder: Path) -> str:
    """Of the weights: of the one file, or of both."""
    files = [folder / _WEIGHTS, *([folder / _SHORT] if (folder / _SHORT).exists() else [])]
    return digest(*(f.read_bytes() for f in files))


def _card(name: str, card: Mapping[str, Any]) -> str:
    rows = "\n".join(f"| {key} | {value} |" for key, value in card.items())
    return (
        f"# Captioner {name}\n\nWrites a short and a dense caption of a clip from a few small frames.\n\n"
        f"| | |\n|---|---|\n{rows}\n\n"
        "It knows what its training pairs showed and nothing else: on other footage its captions are guesses in the\n"
        "same words. `knows` says which.\n"
    )
