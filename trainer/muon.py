"""Muon: matrices follow their momentum made orthogonal, everything else follows AdamW.  One optimiser for both.

A gradient step along a few large singular directions leaves the others untrained; with all singular values
brought near one, every direction of a layer learns at the same pace.  In the few hundred steps that a training on a
CPU has, this is worth more than any other choice that we tried: the autoencoder at equal CPU time 26.1 dB against 21.1
(docs/log.md).  `torch.optim.Muon` is for two dimensions only; here a convolution counts as the matrix from its inputs
and taps to its outputs.  Taps that saw only zeros have no gradient and do not move.

The loop sets one rate for all groups, AdamW's; matrices take `matrix_ratio` times that, as a spectral step.
Cost: four products of the smaller side per matrix and step, about a tenth of a small model's step.
Sources: Muon, https://kellerjordan.github.io/posts/muon; arXiv:2502.16982 (scaling); Newton-Schulz iteration.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


@torch.no_grad()
def orthogonal(matrix: torch.Tensor, iterations: int = 4) -> torch.Tensor:
    """The nearest matrix whose singular values are near one (0.5 to 1.3); rows or columns of zeros stay zeros."""
    a, b, c = _NEWTON_SCHULZ
    x = matrix / (matrix.norm() + 1e-12)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Steps of both kinds; state is `momentum` of matrices, AdamW's three of the rest."""

    def __init__(
        self,
        matrices: Iterable[torch.nn.Parameter],
        others: Iterable[torch.nn.Parameter],
        *,
        lr: float,
        matrix_ratio: float,
        momentum: float = 0.9,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if lr <= 0 or matrix_ratio <= 0 or not 0 <= momentum < 1:
            raise ValueError("lr > 0, matrix_ratio > 0 and momentum in [0, 1) are needed")
        groups: list[dict[str, Any]] = [
            {"params": list(matrices), "matrix": True},
            {"params": list(others), "matrix": False},
        ]
        if any(p.dim() < 2 for p in groups[0]["params"]):
            raise ValueError("a matrix has two dimensions or more")
        defaults = {
            "lr": lr,
            "matrix_ratio": matrix_ratio,
            "momentum": momentum,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__([g for g in groups if g["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; parameters without a gradient stay."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if group["weight_decay"]:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                if group["matrix"]:
                    self._matrix(p, p.grad, group)
                else:
                    self._adam(p, p.grad, group)
        return loss

    def begin(self) -> None:
        """Give every parameter the state that its first step gives it, so that there is what to restore into."""
        for group in self.param_groups:
            for p in group["params"]:
                self._begun(p, group)

    def _begun(self, p: torch.nn.Parameter, group: dict[str, Any]) -> dict[str, Any]:
        state: dict[str, Any] = self.state[p]
        if not state and group["matrix"]:
            state["momentum"] = torch.zeros_like(p)
        elif not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
        return state

    def _matrix(self, p: torch.nn.Parameter, grad: torch.Tensor, group: dict[str, Any]) -> None:
        state = self._begun(p, group)
        state["momentum"].lerp_(grad, 1 - group["momentum"])
        ahead = grad.lerp(state["momentum"], group["momentum"])  # Nesterov
        flat = ahead.flatten(1)
        size = group["lr"] * group["matrix_ratio"] * math.sqrt(max(1.0, flat.shape[0] / flat.shape[1]))
        p.sub_(orthogonal(flat).view_as(p), alpha=size)

    def _adam(self, p: torch.nn.Parameter, grad: torch.Tensor, group: dict[str, Any]) -> None:
        state = self._begun(p, group)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        state["mean"].lerp_(grad, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        step = float(state["step"])
        root = (state["square"] / (1 - beta2**step)).sqrt_().add_(group["eps"])
        p.addcdiv_(state["mean"], root, value=-group["lr"] / (1 - beta1**step))
