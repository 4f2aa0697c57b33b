"""One switch for repeatable arithmetic: a fixed number of threads, deterministic kernels, and back afterwards."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Run torch with this many threads and deterministic kernels only; restore both at the end."""
    threads_before, mode_before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    switch: Any = torch.utils.deterministic
    filled_before = switch.fill_uninitialized_memory
    switch.fill_uninitialized_memory = False  # a tenth of a small model's step, and no use to us
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode_before)
        switch.fill_uninitialized_memory = filled_before
        torch.set_num_threads(threads_before)
