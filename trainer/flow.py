"""Rectified flow: noise levels, interpolation, target, and the Euler solver.  Pure.

`t` is 0 at data and 1 at noise; x_t = (1 - t) x_0 + t eps; the model predicts v = eps - x_0.  t is drawn
logit-normal and shifted towards noise for larger samples, t' = a t / (1 + (a - 1) t), because more tokens
carry the same information through more noise.  The shift is always given as `a`, never as `mu = log a`.
t stays float32: bfloat16 steps near 1 are 2^-8.

Sources: Rectified Flow, arXiv:2209.03003; SD3, arXiv:2403.03206 (logit-normal, shift with sqrt of tokens).
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from schemas.ids import CHANGED_ONLY

if TYPE_CHECKING:  # configs load without torch
    import torch


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FlowConfig:
    """Noise levels in training and sampling."""

    logit_mean: float = 0.0
    """Mean of the logit of t before the shift; SD3 uses 0."""
    logit_std: float = 1.0
    """Standard deviation of the logit of t before the shift; SD3 uses 1."""
    shift: float = 1.0
    """The shift `a` at `shift_tokens` tokens, at least 1; SD3 uses 3 at 1024x1024 pixels."""
    shift_tokens: int = 64
    """Token count at which `a` equals `shift`; elsewhere a = shift * sqrt(tokens / shift_tokens), at least 1."""
    max_shift: float = 12.0
    """Upper limit of `a`; the largest in use (Wan2.2) is 12."""
    final_shift: float | None = dataclasses.field(default=None, metadata=CHANGED_ONLY)
    """What training's shift has fallen to at its end, by the same factor each step: first what shows in much noise
    (place, motion), then what shows in little (corners, arms). Sampling keeps `shift`; with None training does, too."""

    def __post_init__(self) -> None:
        if self.final_shift is not None and not 1 <= self.final_shift <= self.shift:
            raise ValueError(f"flow: 1 <= final_shift <= shift is needed, got {self.final_shift} and {self.shift}")
        if self.logit_std <= 0 or self.shift < 1 or self.max_shift < self.shift or self.shift_tokens < 1:
            raise ValueError("flow: logit_std > 0, 1 <= shift <= max_shift and shift_tokens >= 1 are needed")

    def at(self, done: float) -> FlowConfig:
        """The noise levels that training draws from when this share of its steps is done, [0, 1]."""
        if self.final_shift is None:
            return self
        shift = self.shift * (self.final_shift / self.shift) ** min(1.0, done)
        return dataclasses.replace(self, shift=shift, final_shift=None)


def shift_of(tokens: int, config: FlowConfig) -> float:
    """The shift `a` of a sample of this many tokens."""
    return min(config.max_shift, max(1.0, config.shift * math.sqrt(tokens / config.shift_tokens)))


def shifted(t: np.ndarray | float, a: float) -> np.ndarray:
    """t' = a t / (1 + (a - 1) t): 0 stays 0, 1 stays 1, larger `a` is noisier."""
    t = np.asarray(t, dtype=np.float64)
    return a * t / (1 + (a - 1) * t)


def draw_t(generator: np.random.Generator, tokens: int, config: FlowConfig) -> float:
    """A training noise level."""
    plain = 1 / (1 + math.exp(-(config.logit_mean + config.logit_std * generator.standard_normal())))
    return float(np.float32(shifted(plain, shift_of(tokens, config))))


def interpolate(x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """x_t; `t` broadcasts against x0."""
    return (1 - t) * x0 + t * noise


def target(x0: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The velocity dx_t/dt."""
    return noise - x0


def unshifted(t: float, a: float) -> float:
    """The inverse of `shifted`."""
    return t / (a - (a - 1) * t)


def solver_times(steps: int, tokens: int, config: FlowConfig, start: float = 1.0) -> np.ndarray:
    """The noise levels of a sampling run, from `start` down to 0, shifted as in training.

    From 1 there are `steps + 1` of them; from less, the share of them that lies below (at least one step).
    """
    a = shift_of(tokens, config)
    plain = 1.0 if start == 1 else unshifted(start, a)
    return shifted(np.linspace(plain, 0.0, max(1, math.ceil(steps * plain)) + 1), a).astype(np.float32)


def euler_step(x: torch.Tensor, velocity: torch.Tensor, t: float, t_next: float) -> torch.Tensor:
    """One step of the solver from t to t_next < t."""
    return x + (t_next - t) * velocity


def guided(with_text: torch.Tensor, without_text: torch.Tensor, scale: float) -> torch.Tensor:
    """Classifier-free guidance, arXiv:2207.12598: scale 1 is the conditional model itself."""
    return without_text + scale * (with_text - without_text)
