"""How a torch model draws tokens by a seed, and how what ran it is named.

Greedy decoding needs neither.  A retry that samples sets the seed inside a fork of the generator, so that
nothing else in the process draws differently, and the same clip with the same seed gets the same text.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from captioner.backends.base import Decoding


@contextlib.contextmanager
def drawn(decoding: Decoding) -> Iterator[dict[str, Any]]:
    """The settings of `generate` that make it draw, under the seed; none where it is greedy."""
    if not decoding.temperature:
        yield {}
        return
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(decoding.seed)
        yield {"do_sample": True, "temperature": decoding.temperature}


def torch_engine(device: str, dtype: torch.dtype) -> str:
    """What a row says of the engine, such as `torch 2.15.0, transformers 5.23.0, cpu, float32`."""
    import transformers

    kind = torch.cuda.get_device_name() if device.startswith("cuda") else device
    number = str(dtype).removeprefix("torch.")
    return f"torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}, {kind}, {number}"
