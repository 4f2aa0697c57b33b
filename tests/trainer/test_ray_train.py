"""Ray Train starts the workers: two of them train as one process does, on a real cluster."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from orchestration.ray_head import RayHead
from tests.trainer.test_parallel import STEPS, run
from trainer.launch import LaunchConfig, launch
from trainer.parallelize import World


def work(folder: Path, world: World) -> None:
    """What each worker does; the first one tells."""
    found = run(folder, "ray", world, "replicate")
    if world.first:
        (folder / "found.json").write_text(json.dumps({"size": world.size, **found}))


def but_loss(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "loss"} for row in rows]


@pytest.mark.ray
def test_two_workers_of_ray_train_make_the_ledger_of_one_process(tmp_path: Path, cluster: RayHead) -> None:
    two = LaunchConfig(workers=2, launcher="ray", max_failures=0)
    launch(functools.partial(work, tmp_path), two, "cpu", tmp_path)
    several = json.loads((tmp_path / "found.json").read_text())
    one = run(tmp_path, "one", World(), "replicate")
    assert several["size"] == 2
    assert {row["step"] for row in one["rows"]} == set(range(STEPS))
    assert but_loss(several["rows"]) == but_loss(one["rows"])
    assert max(abs(a["loss"] - b["loss"]) / b["loss"] for a, b in zip(several["rows"], one["rows"])) < 1e-5
    assert several["weights"] == pytest.approx(one["weights"], rel=1e-6)
