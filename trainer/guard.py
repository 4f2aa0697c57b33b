"""Which steps are not taken: those whose gradient is not finite, or far larger than those before it.

A gradient is always clipped to a norm.  Clipping does not help against a step that points nowhere (a damaged latent, an
overflow): such a step is skipped, its rows stay in the ledger, and a crash capsule (`capsule.py`) keeps what is needed
to see it again.  What is far larger is judged by the median of the last norms, which one outlier cannot move.

The history is part of a snapshot, so a resumed run judges as an undisturbed one does.
Source: adaptive clipping in Open-Sora-Plan 1.3 (moving mean of the norm and three deviations).
"""

import math
import statistics

import torch

from schemas.errors import ModelError

_HISTORY = 64
_ENOUGH = 32
_PATIENCE = 20


class Guard:
    """Norms of the last steps that were taken, and how many were skipped since."""

    def __init__(self, spike: float) -> None:
        self._spike = spike
        self.state = torch.zeros(_HISTORY + 1, dtype=torch.float64)
        """The last norms, oldest first, zeros where there are none yet; last the number of steps skipped in a row."""

    def reason(self, norm: float) -> str:
        """Why a step of this gradient norm is skipped; empty if it is taken.

        Raises:
            ModelError: If nothing but skipped steps came for long.
        """
        known = [n for n in self.state[:-1].tolist() if n > 0]
        found = ""
        if not math.isfinite(norm):
            found = "the gradient is not finite"
        elif self._spike and len(known) >= _ENOUGH and norm > self._spike * statistics.median(known):
            found = f"gradient norm {norm:.4g} is over {self._spike:g} times the median {statistics.median(known):.4g}"
        if not found:
            self.state[:-2] = self.state[1:-1].clone()
            self.state[-2] = norm
            self.state[-1] = 0
            return ""
        self.state[-1] += 1
        if self.state[-1] >= _PATIENCE:
            raise ModelError(
                f"{_PATIENCE} steps in a row were skipped, the last because {found}: lower the learning rate, "
                "or look at a crash capsule with `dailies train replay` (the newest snapshot is from before)"
            )
        return found
