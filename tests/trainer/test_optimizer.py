"""Which of the transformer's weights Muon turns, and that a run with it goes on as if it had not stopped."""

from pathlib import Path

import pytest
import torch

from schemas.errors import ConfigError
from tests.trainer.small_run import config, trainer
from trainer.determinism import deterministic
from trainer.muon import Muon
from trainer.optimizer import optimizer_of
from trainer.snapshots import Snapshots
from trainer.train import fit

MUON = ("optimizer.kind=muon", "model.local=true")


def test_muon_turns_the_maps_of_the_blocks_and_nothing_else() -> None:
    made = trainer(*MUON)
    optimizer = optimizer_of(made.model, config(*MUON).optimizer)
    assert isinstance(optimizer, Muon)
    names = {id(p): n for n, p in made.model.named_parameters()}
    turned, others = ({names[id(p)] for p in group["params"]} for group in optimizer.param_groups)
    assert turned == {
        f"blocks.{i}.{part}.weight"
        for i in range(2)
        for part in (
            *(f"{a}.{p}" for a in ("attention", "cross") for p in ("query", "key_value", "out")),
            "mlp.up",
            "mlp.down",
        )
    }
    assert turned | others == set(names.values())


def test_a_step_has_the_rate_that_the_config_says() -> None:
    made = trainer(*MUON, "optimizer.warmup_steps=0", "optimizer.matrix_rate=0.03")
    for p in made.model.parameters():  # zeros would leave a block without gradients
        torch.nn.init.normal_(p, std=0.1)
    matrix = dict(made.model.named_parameters())["blocks.0.mlp.up.weight"]
    before = matrix.detach().clone()
    made.train_step()
    moved = torch.linalg.svdvals(matrix.detach() - before)
    wide = 4**0.5  # a matrix of four times as many outputs as inputs takes longer steps
    assert float(moved.max()) == pytest.approx(0.03 * wide, rel=0.35)


def test_a_run_with_muon_that_was_stopped_ends_with_the_same_bits(tmp_path: Path) -> None:
    with deterministic(1):
        whole = trainer(*MUON)
        fit(whole, Snapshots(tmp_path / "whole", 0.0))
        fit(trainer(*MUON), Snapshots(tmp_path / "stopped", 0.0), stop_at=3)
        resumed = trainer(*MUON)
        fit(resumed, Snapshots(tmp_path / "stopped", 0.0))
    assert resumed.step == whole.step
    for a, b in zip(whole.tensors().values(), resumed.tensors().values()):
        assert torch.equal(a, b)


def test_muon_over_slices_of_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="muon needs whole matrices"):
        optimizer_of(trainer().model, config(*MUON).optimizer, sharded=True)


def test_an_unknown_optimiser_is_named() -> None:
    with pytest.raises(ValueError, match="adamw or muon, got `sgd`"):
        config("optimizer.kind=sgd")
