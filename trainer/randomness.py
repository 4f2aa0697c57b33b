"""Counter-based randomness: what is drawn depends on what it is for, not on what was drawn before.

Every draw comes from a Philox generator whose key is a hash of (seed, sample, visit, purpose).  There is
no generator state to save, resume is exact by construction, and a sample gets the same noise, noise level,
task and caption at any world size, worker count or pack layout.

Cost: about 10 us per generator.  Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

import hashlib

import numpy as np


def generator(seed: int, sample: str, visit: int, purpose: str) -> np.random.Generator:
    """The generator for one purpose of one visit to one sample."""
    text = f"{seed}\x1f{sample}\x1f{visit}\x1f{purpose}".encode()
    key = int.from_bytes(hashlib.sha256(text).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))


def noise(seed: int, sample: str, visit: int, shape: tuple[int, ...], purpose: str = "noise") -> np.ndarray:
    """Standard normal float32 noise of a shape."""
    return generator(seed, sample, visit, purpose).standard_normal(shape, dtype=np.float32)


def uniform(seed: int, sample: str, visit: int, purpose: str) -> float:
    """One number in [0, 1)."""
    return float(generator(seed, sample, visit, purpose).random())


def torch_seed(seed: int, purpose: str) -> int:
    """A seed for torch (weight initialisation, posterior noise) that follows from ours and a purpose."""
    return int.from_bytes(hashlib.sha256(f"{seed}\x1f{purpose}".encode()).digest()[:7], "little")
