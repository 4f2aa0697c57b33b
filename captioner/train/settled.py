"""Trainings of the captioner's room run with a fixed seed, number of threads and deterministic algorithms."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def settled(threads: int, seed: int) -> Iterator[None]:
    """Fixed threads, seed and algorithms inside; as they were after."""
    before, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_num_threads(before)
            torch.use_deterministic_algorithms(strict)
