"""Heads on CLIP features, and plug-ins: small judges of frames that users bring by path or by name.

A head is one linear layer or a stack of them, given as safetensors or as a PyTorch state dict that is read with
`weights_only` (a pickle that runs code is refused).  The layers are the 2-d weights in the order of their names,
which takes LAION's files as they are: `sac+logos+ava1-l14-linearMSE.pth` (layers.0, .2, .4, .6, .7) and
`sa_0_4_vit_l_14_linear.pth` (weight, bias); neither has activations.  A head that has says so in the safetensors
metadata: `activation` = relu or gelu.  Features are unit vectors, as LAION's are.

A plug-in is a function `module:function` from a list of RGB frames to a number.
Cost: microseconds per frame.  Ref: github.com/christophschuhmann/improved-aesthetic-predictor.
"""

import dataclasses
import importlib
import itertools
import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from schemas.errors import ConfigError, ModelError

ACTIVATIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3))),
}
Judge = Callable[[list[np.ndarray]], float]
_NOTES = "notes"
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """Layers from features to one number."""

    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    """(weight (out, in), bias (out,)) in order."""
    activation: str = "none"
    """Between the layers: none, relu or gelu."""

    @property
    def dim(self) -> int:
        """Length of the features that it reads."""
        return int(self.layers[0][0].shape[1])

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(frame, dim) unit vectors to (frame,) numbers."""
        value = features.astype(np.float64)
        for i, (weight, bias) in enumerate(self.layers):
            value = value @ weight.T + bias
            if i + 1 < len(self.layers):
                value = ACTIVATIONS[self.activation](value)
        return np.asarray(value[:, 0])


def read_head(path: str, dim: int) -> Head:
    """A head from a file, for features of that length.

    Raises:
        ModelError: If it does not read, is no such head, or is one for another CLIP.
    """
    state, notes = _state(path)
    head = as_head(state, notes.get("activation", "none"), path)
    if head.dim != dim:
        raise ModelError(
            f"head {path} reads features of {head.dim} numbers, the CLIP in use gives {dim}: name the CLIP that it was "
            "trained on with `clip.model` (LAION's heads want ViT-L-14, 768)"
        )
    return head


def as_head(state: Mapping[str, np.ndarray], activation: str, name: str) -> Head:
    """Layers out of a state dict, in the order of their names."""
    if activation not in ACTIVATIONS:
        raise ModelError(f"head {name}: activation `{activation}` is none of {', '.join(ACTIVATIONS)}")
    weights = sorted((k for k, v in state.items() if k.endswith("weight") and v.ndim == 2), key=_natural)
    layers = []
    for key in weights:
        weight = state[key].astype(np.float64)
        bias = state.get(key.removesuffix("weight") + "bias")
        layers.append((weight, np.zeros(len(weight)) if bias is None else bias.astype(np.float64)))
    fits = all(a[0].shape[0] == b[0].shape[1] for a, b in itertools.pairwise(layers))
    if not layers or not fits or layers[-1][0].shape[0] != 1:
        shapes = ", ".join(f"{k} {list(state[k].shape)}" for k in weights) or "no 2-d weight"
        raise ModelError(f"head {name} is no stack of linear layers that ends in one number: {shapes}")
    return Head(tuple(layers), activation)


def _natural(key: str) -> list[tuple[int, str]]:
    """layers.10 comes after layers.2."""
    return [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", key)]


def _state(path: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        if path.endswith(".safetensors"):
            from safetensors import safe_open

            with safe_open(path, framework="numpy") as f:
                notes = dict(f.metadata() or {})
                notes.update(json.loads(notes.pop(_NOTES, "{}")))
                return {k: f.get_tensor(k) for k in f.keys()}, notes  # noqa: SIM118 - not a dict
        import torch

        loaded = torch.load(path, map_location="cpu", weights_only=True)
        loaded = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
        return {str(k): v.float().numpy() for k, v in loaded.items() if hasattr(v, "numpy")}, {}
    except Exception as e:  # a file from outside may break a reader in any way
        raise ModelError(
            f"head {path} does not read: {str(e).splitlines()[0][:300]}. It is a safetensors file or a state dict that "
            "`torch.load(weights_only=True)` takes"
        ) from e


def write_head(head: Head, path: str, notes: Mapping[str, str]) -> None:
    """Save as safetensors that `read_head` takes."""
    from safetensors.numpy import save_file

    state: dict[str, Any] = {}
    for i, (weight, bias) in enumerate(head.layers):
        state[f"layers.{i}.weight"] = np.ascontiguousarray(weight, np.float32)
        state[f"layers.{i}.bias"] = np.ascontiguousarray(bias, np.float32)
    # one entry, because safetensors writes several in no fixed order
    save_file(state, path, {_NOTES: json.dumps({**notes, "activation": head.activation}, sort_keys=True)})


def fit_head(features: np.ndarray, targets: np.ndarray, ridge: float = 1e-2) -> Head:
    """The linear head with the least squared error, held back by a ridge.

    Args:
        features: (frame, dim) unit vectors.
        targets: (frame,) numbers.
        ridge: Penalty, relative to the number of frames.
    """
    mean, level = features.mean(axis=0, dtype=np.float64), float(targets.mean())
    centred = features.astype(np.float64) - mean
    spread = float(np.square(centred).sum(axis=1).mean())
    gram = centred.T @ centred / len(centred) + ridge * spread * np.eye(features.shape[1])
    weight = np.linalg.solve(gram, centred.T @ (targets - level) / len(centred))
    return Head(((weight[None], np.array([level - weight @ mean])),))


def auc(good: np.ndarray, bad: np.ndarray) -> float:
    """How often a good one is above a bad one; 0.5 is chance."""
    order = np.sign(good[:, None] - bad[None])
    return float((order.mean() + 1) / 2)


def is_function(name: str) -> bool:
    """`module:function` rather than a path."""
    return bool(_FUNCTION.fullmatch(name)) and not os.path.exists(name)


def load_function(name: str) -> Judge:
    """A plug-in by name.

    Raises:
        ConfigError: If there is no such module or function.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as e:
        raise ConfigError(f"plug-in `{name}` does not load: {e}; it is `module:function` on the Python path") from e
    if not callable(found):
        raise ConfigError(f"plug-in `{name}` is no function")
    return found  # type: ignore[no-any-return]
