"""Several processes train as one does: same rows in the same steps, same losses up to rounding, same snapshots.

Four processes are started once; they train together, then as two pairs side by side, and leave what came of it.
"""

import functools
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.errors import ConfigError, ModelError
from schemas.ids import digest
from tests.trainer.small_run import trainer, weights_sum
from trainer.config import DitSettings
from trainer.determinism import deterministic
from trainer.launch import LaunchConfig, launch, raised_by_worker
from trainer.parallelize import World, check_packs, deal, idle_share, joined
from trainer.recipes import tiny
from trainer.snapshots import Snapshots
from trainer.train import fit

STEPS = 6
HALF = 3


def run(
    folder: Path, name: str, world: World, mode: str, stop_at: int | None = None, recompute: bool = False
) -> dict[str, Any]:
    """Train, on from what lies in the folder `name`; what each process saw of it."""
    with deterministic(1):
        made = trainer(world=world, launch=LaunchConfig(mode=mode, recompute=recompute))
        every_s = 0.0 if stop_at is not None else 1e9
        snapshots = Snapshots(folder / name, every_s, world)
        ledger = fit(made, snapshots, stop_at)
    weights = {k: made.spread.whole(v) for k, v in made.model.state_dict().items()}
    total = sum(float(v.double().abs().sum()) for v in weights.values())
    return {"rows": ledger.to_pylist(), "weights": total}


def everything(folder: Path, world: World) -> None:
    """What each of the four processes does."""
    found = {"four": run(folder, "four", world, "replicate")}
    run(folder, "half-four", world, "replicate", stop_at=HALF)
    import torch.distributed as dist

    dist.barrier()
    dist.destroy_process_group()
    pair, rank = divmod(world.rank, 2)
    with joined(rank, 2, f"file://{folder}/meeting-{pair}", "cpu") as mine:
        if pair == 0:
            found["two"] = run(folder, "two", mine, "replicate", recompute=True)
            found["two after four"] = run(folder, "half-four", mine, "replicate")
        else:
            found["sharded"] = run(folder, "sharded", mine, "shard")
            run(folder, "half-sharded", mine, "shard", stop_at=HALF)
        dist.barrier()
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting-end", rank=world.rank, world_size=4)
    if rank == 0:
        (folder / f"found-{pair}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs")
    launch(functools.partial(everything, folder), LaunchConfig(workers=4, max_failures=0), "cpu", folder)
    found = json.loads((folder / "found-1.json").read_text()) | json.loads((folder / "found-0.json").read_text())
    return folder, found | {"one": run(folder, "one", World(), "replicate")}


@pytest.mark.parametrize("name", ["two", "four", "sharded", "two after four"])
def test_the_ledger_and_the_losses_are_those_of_one_process(runs: tuple[Path, dict[str, Any]], name: str) -> None:
    one, several = runs[1]["one"], runs[1][name]

    def but_loss(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in r.items() if k != "loss"} for r in rows]

    assert {r["step"] for r in one["rows"]} == set(range(STEPS))
    assert but_loss(several["rows"]) == but_loss(one["rows"])
    differences = [abs(a["loss"] - b["loss"]) / b["loss"] for a, b in zip(several["rows"], one["rows"])]
    assert max(differences) < 1e-5
    assert several["weights"] == pytest.approx(one["weights"], rel=1e-6)


def test_a_snapshot_of_shards_goes_on_in_one_process(runs: tuple[Path, dict[str, Any]]) -> None:
    folder, found = runs
    assert list((folder / "half-sharded").glob(f"snapshot-*{HALF}.dcp/.metadata"))
    on = run(folder, "half-sharded", World(), "replicate")
    assert [r["step"] for r in on["rows"]] == [r["step"] for r in found["one"]["rows"]]
    assert on["weights"] == pytest.approx(found["one"]["weights"], rel=1e-6)


def test_a_dcp_snapshot_that_lost_its_end_is_passed_over(runs: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = runs
    (newest,) = (folder / "half-sharded").glob(f"snapshot-*{HALF}.dcp")
    part = max(newest.glob("*.distcp"), key=lambda p: p.stat().st_size)
    part.write_bytes(part.read_bytes()[:-10])
    made = trainer()
    made.restore(Snapshots(folder / "half-sharded", 1e9))
    made.close()
    assert made.step == HALF - 1


def test_the_snapshot_of_another_model_is_refused(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, 0.0)
    snapshots.save(2, {"model.x": torch.ones(2)})
    made = trainer()
    with pytest.raises(ModelError, match="snapshot of another model"):
        made.restore(snapshots)
    snapshots.save(3, {**made.tensors(), "model.embed.bias": torch.ones(3)})
    with pytest.raises(ModelError, match=r"`model\.embed\.bias` is \(3,\) there and \(32,\) here"):
        made.restore(snapshots)
    made.close()


def test_recomputing_blocks_changes_no_loss() -> None:
    with deterministic(1):
        plain, recomputed = trainer(), trainer(launch=LaunchConfig(recompute=True))
        for _ in range(2):
            assert plain.train_step()[1] == recomputed.train_step()[1]
        assert weights_sum(plain) == weights_sum(recomputed)
    for made in (plain, recomputed):
        made.close()


def test_compiled_blocks_compute_the_same_and_are_compiled_once(caplog: pytest.LogCaptureFixture) -> None:
    """Traced only: what a compiler makes of it is torch's affair; that packs of all lengths share programs is ours."""
    from torch._dynamo.utils import counters

    compiled = {"launch": LaunchConfig(compiled=True, compiler="eager")}
    with deterministic(1):
        plain, traced = trainer(), trainer(**compiled)  # type: ignore[arg-type]
        assert plain.train_step()[1]["loss"] == traced.train_step()[1]["loss"]
        programs = counters["frames"]["ok"]
        assert programs >= 3  # before, between and after what stays outside
        for _ in range(3):
            assert plain.train_step()[1]["loss"] == traced.train_step()[1]["loss"]
        assert counters["frames"]["total"] == programs, "steps with other lengths were compiled again"
        assert weights_sum(plain) == weights_sum(traced)
    assert not [r for r in caplog.records if "recompile_limit" in r.getMessage()]
    for made in (plain, traced):
        made.close()
    torch.compiler.reset()


def test_bfloat16_follows_float32_with_float32_weights() -> None:
    with deterministic(1):
        plain, half = trainer(), trainer("optimizer.precision=bfloat16")
        losses = [(plain.train_step()[1]["loss"], half.train_step()[1]["loss"]) for _ in range(3)]
    assert all(b == pytest.approx(a, rel=0.02) for a, b in losses)
    assert any(a != b for a, b in losses)
    assert all(v.dtype == torch.float32 for v in half.tensors().values() if v.dtype != torch.float64)
    for made in (plain, half):
        made.close()


def test_packs_are_dealt_whole_evenly_and_by_cost() -> None:
    rng = random.Random(0)
    for _ in range(200):
        ranks = rng.randint(1, 8)
        costs = [rng.uniform(1, 9) for _ in range(rng.randint(ranks, 40))]
        dealt = deal(costs, ranks)
        assert sorted(i for mine in dealt for i in mine) == list(range(len(costs)))
        most = -(-len(costs) // ranks)
        assert all(1 <= len(mine) <= most for mine in dealt)
    assert deal([1, 1, 1, 9], 2) == [[2, 3], [0, 1]]
    assert idle_share([1.0] * 8, 4) == 0
    costs = [rng.uniform(1, 4) for _ in range(64)]
    assert idle_share(costs, 8) < 0.02
    with pytest.raises(ConfigError, match=r"set dit\.plan\.packs_per_step to 3 or more"):
        deal([1.0, 2.0], 3)
    check_packs(6, 4, "replicate")
    with pytest.raises(ConfigError, match=r"set dit\.plan\.packs_per_step to a multiple of 4"):
        check_packs(6, 4, "shard")


def test_how_many_train_together_is_no_part_of_a_checkpoints_name() -> None:
    one = DitSettings(dit=tiny().dit, shape=tiny().shape)
    many = DitSettings(dit=tiny().dit, shape=tiny().shape, launch=LaunchConfig(workers=4, mode="shard"))
    assert digest(one) == digest(many)
    with pytest.raises(ValueError, match="workers >= 1"):
        LaunchConfig(workers=0)


def test_what_a_worker_raises_on_purpose_is_raised_here() -> None:
    error = raised_by_worker("ConfigError", "too few packs")
    assert (type(error), str(error), error.exit_code) == (ConfigError, "too few packs", 2)
