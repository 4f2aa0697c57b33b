"""One switch for repeatable arithmetic: a fixed number of threads, deterministic kernels, and back afterwards."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Run torch with this many threads and deterministic kernels only; restore both at the end."""
    threads_before, mode_before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode_before)
        torch.set_num_threads(threads_before)
