"""Steps that point nowhere are not taken, and what they were can be seen again."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from orchestration import cli
from schemas.errors import ModelError
from tests.trainer.small_run import InMemory, trainer, weights_sum
from trainer.capsule import replay
from trainer.data import Drawn
from trainer.determinism import deterministic
from trainer.guard import Guard
from trainer.snapshots import Snapshots
from trainer.train import fit

BAD = "clip05"


class Poisoned(InMemory):
    """One clip's latent holds a number that is none, or is far too large."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def drawn(self, drawn: Drawn) -> torch.Tensor:
        tokens = super().drawn(drawn)
        if drawn.visit.clip_id == BAD:
            tokens[-1] = self.value
        return tokens


def test_a_step_with_a_number_that_is_none_is_skipped_and_its_capsule_replays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = trainer(samples=Poisoned(float("nan")))
    with deterministic(1):
        ledger = fit(made, Snapshots(tmp_path, 1e9)).to_pylist()
    hit = {r["step"] for r in ledger if r["clip_id"] == BAD}
    assert hit
    assert len(hit) < 6
    capsules = sorted((tmp_path / "capsules").iterdir())
    assert [int(c.name.split("-")[1]) for c in capsules] == sorted(hit)[:4]
    assert all(torch.isfinite(v).all() for v in made.tensors().values())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {line["step"] for line in lines if "skipped" in line} == hit
    found = replay(capsules[0])
    assert found.largest_difference == 0
    assert found.suspects == [BAD]
    assert cli.main(["train", "replay", str(capsules[0]), "--json", "--root", str(tmp_path)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["step"], said["suspects"], said["largest_difference"]) == (min(hit), [BAD], 0)
    (capsules[0] / "capsule.json").unlink()
    with pytest.raises(ModelError, match="holds no crash capsule"):
        replay(capsules[0])


def test_a_spike_is_skipped_with_the_loss_that_it_had_and_clipping_alone_would_not_do() -> None:
    quiet, loud = trainer("optimizer.steps=80"), trainer("optimizer.steps=80", samples=Poisoned(300.0))
    skipped = 0
    with deterministic(1):
        for _ in range(45):
            quiet.advance()
            skipped += bool(loud.advance().skipped)
    assert skipped > 0
    assert abs(weights_sum(loud) - weights_sum(quiet)) < 0.05 * weights_sum(quiet)
    for made in (quiet, loud):
        made.close()


def test_what_is_a_spike_is_judged_by_the_median_of_what_was_taken() -> None:
    guard = Guard(10.0)
    assert not any(guard.reason(1.0 + 0.01 * i) for i in range(40))
    assert "over 10 times the median" in guard.reason(20.0)
    assert guard.reason(float("inf")) == "the gradient is not finite"
    other = Guard(10.0)
    other.state.copy_(guard.state)  # as a snapshot brings it back
    assert other.reason(20.0) == guard.reason(20.0)
    assert not guard.reason(5.0)
    assert guard.state[-1] == 0
    assert not Guard(0.0).reason(1e9)
    assert all(guard.reason(float("nan")) for _ in range(19))
    with pytest.raises(ModelError, match="20 steps in a row were skipped"):
        guard.reason(float("nan"))


def test_a_capsule_is_replayed_from_its_folder_alone(tmp_path: Path) -> None:
    made = trainer(samples=Poisoned(float("inf")))
    with deterministic(1):
        while not made.advance(tmp_path / "first").skipped:
            pass
    made.close()
    (one,) = (tmp_path / "first").iterdir()
    moved = one.rename(tmp_path / "elsewhere")
    found = replay(moved)
    assert dataclasses.asdict(found)["capsule"]["reason"] == "the gradient is not finite"
    assert found.largest_difference == 0
