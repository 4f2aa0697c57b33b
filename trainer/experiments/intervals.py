"""Intervals of an experiment: percentile bootstrap, 95 %, over what was drawn (prompts, or held-out clips).

What was measured several times on one prompt (attributes, training seeds) is averaged first, so that a prompt counts
once.  Two arms are compared on the same prompts: the differences are resampled, which leaves out how hard the prompts
are.  The intervals say how much the *prompts* matter; how much another training seed would change is in them only
as far as several seeds were trained.  Pure; 10,000 resamples of 64 prompts take 10 ms.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Numbers = Sequence[float] | npt.NDArray[np.float64]
RESAMPLES = 10_000
_TAILS = (2.5, 97.5)


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % interval; none where there are fewer than two values, and no mean where there is none."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """Values that were resampled."""

    @property
    def text(self) -> str:
        """For people."""
        if self.value is None:
            return "none"
        if self.low is None or self.high is None:
            return f"{self.value:.3f} (n {self.n})"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean(values: Numbers, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The mean of one number per prompt or clip."""
    x = np.asarray(values, np.float64)
    if len(x) < 2:
        return Interval(float(x[0]) if len(x) else None, None, None, len(x))
    picks = np.random.default_rng(seed).integers(len(x), size=(resamples, len(x)))
    low, high = np.percentile(x[picks].mean(axis=1), _TAILS)
    return Interval(float(x.mean()), float(low), float(high), len(x))


def difference(of: Numbers, against: Numbers, seed: int = 0) -> Interval:
    """How much higher the first is on the same prompts.

    Raises:
        ValueError: If they are not pairs.
    """
    if len(of) != len(against):
        raise ValueError(f"pairs are needed, got {len(of)} and {len(against)} values")
    return mean(np.asarray(of, np.float64) - np.asarray(against, np.float64), seed)


def ratio(of: Numbers, over: Numbers, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The sum of one number per prompt over the sum of another: a share of what is not in every prompt.

    None where nothing is there to be a share of; resamples in which nothing is are left out.
    """
    return ratio_difference(of, over, np.zeros(len(of)), np.ones(len(of)), seed, resamples)


def ratio_difference(
    of: Numbers,
    over: Numbers,
    against: Numbers,
    against_over: Numbers,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """How much higher the first ratio is than the second on the same prompts."""
    a, b, c, d = (np.asarray(x, np.float64) for x in (of, over, against, against_over))
    if len({len(a), len(b), len(c), len(d)}) != 1:
        raise ValueError(f"pairs are needed, got {len(a)}, {len(b)}, {len(c)} and {len(d)} values")
    if not len(a) or not b.sum() or not d.sum():
        return Interval(None, None, None, len(a))
    value = float(a.sum() / b.sum() - c.sum() / d.sum())
    picks = np.random.default_rng(seed).integers(len(a), size=(resamples, len(a)))
    sums = [x[picks].sum(axis=1) for x in (a, b, c, d)]
    there = (sums[1] > 0) & (sums[3] > 0)
    if len(a) < 2 or not there.any():
        return Interval(value, None, None, len(a))
    found = sums[0][there] / sums[1][there] - sums[2][there] / sums[3][there]
    low, high = np.percentile(found, _TAILS)
    return Interval(value, float(low), float(high), len(a))
