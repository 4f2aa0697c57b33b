"""How fast training is: tokens per second, model FLOPs utilisation, share of time spent waiting, expected end.

MFU is the operations that the model's shapes need (`flops.py`: attention counted per sample, recomputation and padding
never) over what the hardware would do at the rate of its own matrix product, measured by the same process before the
first step.  Cost: about a fifth of a second, once.
"""

import time

import torch

_SIDE = {"cpu": 768, "cuda": 8192}


def gemm_rate(device: str, dtype: torch.dtype = torch.float32, least_s: float = 0.1) -> float:
    """Operations per second of a square matrix product here and now: the best of a few rounds."""
    kind = device.split(":")[0]
    side = _SIDE.get(kind, 1024)
    a = torch.ones(side, side, device=device, dtype=dtype)
    b = torch.ones(side, side, device=device, dtype=dtype)
    out = torch.empty(side, side, device=device, dtype=dtype)
    best, begun = float("inf"), time.perf_counter()
    rounds = 0
    while rounds < 3 or time.perf_counter() - begun < least_s:
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        if kind == "cuda":
            torch.cuda.synchronize()
        if rounds:  # the first one warms up
            best = min(best, time.perf_counter() - start)
        rounds += 1
    return 2 * side**3 / best


class Meter:
    """Sums over the last steps."""

    def __init__(self, rate: float, workers: int, steps: int, done: int) -> None:
        """
        Args:
            rate: Operations per second of one worker's matrix product.
        """
        self._rate, self._workers, self._steps, self._first = rate, workers, steps, done
        self._begun = self._mark = time.perf_counter()
        self._tokens = self._flops = self._waited = 0.0

    def add(self, tokens: int, flops: float, waited_s: float) -> dict[str, float]:
        """Count a step of all workers; returns what it came to on its own."""
        now = time.perf_counter()
        took = max(now - self._mark, 1e-9)
        self._mark = now
        self._tokens, self._flops, self._waited = self._tokens + tokens, self._flops + flops, self._waited + waited_s
        return {
            "tokens_per_s": tokens / took,
            "mfu": flops / took / (self._rate * self._workers),
            "wait_share": waited_s / took,
        }

    def summary(self) -> dict[str, float]:
        """Over all steps since it began."""
        took = max(self._mark - self._begun, 1e-9)
        return {
            "tokens_per_s": self._tokens / took,
            "mfu": self._flops / took / (self._rate * self._workers),
            "wait_share": self._waited / took,
            "gemm_gflops": self._rate / 1e9,
        }

    def line(self, done: int) -> str:
        """For the progress line."""
        found = self.summary()
        left = (time.perf_counter() - self._begun) / max(1, done - self._first) * (self._steps - done)
        end = time.strftime("%H:%M" if left < 43_200 else "%a %d %b %H:%M", time.localtime(time.time() + left))
        return (
            f"{found['tokens_per_s']:,.0f} tokens/s, MFU {found['mfu']:.0%}, "
            f"waiting {found['wait_share']:.1%}, ends about {end}"
        )
