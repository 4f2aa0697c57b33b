"""Early stopping on held-out pairs: when a run has stopped getting better, and which weights it then keeps.

The held-out loss is looked at every so many steps on draws that are fixed by the seed; a run that was not better than
its best for `patience` looks ends, and the weights of the best look are its result.  All of it is in the snapshot, so
that a run which was killed stops at the same step with the same weights.  Cost: a copy of the weights.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

Weights = Mapping[str, Tensor]


@dataclasses.dataclass(slots=True)
class Watch:
    """What was seen of the held-out loss so far."""

    patience: int
    """Looks without a better one after which a run ends; 0 never ends it, and the last weights are its result."""
    best_loss: float = math.inf
    best_step: int = 0
    looks_since: int = 0
    weights: dict[str, Tensor] | None = None
    """Of the best look."""

    @property
    def is_over(self) -> bool:
        return 0 < self.patience <= self.looks_since

    def look(self, step: int, loss: float, weights: Weights) -> None:
        """Take a look into account; a loss that is not finite is no improvement."""
        if not self.patience:
            return
        if loss < self.best_loss:
            self.best_loss, self.best_step, self.looks_since = loss, step, 0
            self.weights = {name: value.detach().clone() for name, value in weights.items()}
        else:
            self.looks_since += 1

    def state(self) -> dict[str, Any]:
        """For the snapshot."""
        names = ("best_loss", "best_step", "looks_since", "weights")
        return {name: getattr(self, name) for name in names}

    def resume(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
