"""The loss of a fixed run.  A refactor of `trainer/` leaves these numbers alone (CONTRIBUTING.md)."""

import pytest

from tests.trainer.small_run import trainer, weights_sum
from trainer.determinism import deterministic

LOSSES = [
    1.999575247367223,
    1.995439698298772,
    1.926284046400161,
    1.9759019513924916,
    2.0026349425315857,
    1.9810308538950407,
]
WEIGHTS = 6688.114267791526


def test_the_losses_and_weights_of_a_fixed_run_are_those_they_were() -> None:
    made = trainer()
    with deterministic(1):
        losses = [made.train_step()[1]["loss"] for _ in range(len(LOSSES))]
    assert losses == pytest.approx(LOSSES, rel=1e-6)
    assert weights_sum(made) == pytest.approx(WEIGHTS, rel=1e-7)
