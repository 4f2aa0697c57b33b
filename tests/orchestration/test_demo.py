"""The demo through Dagster: whole, repeatable, and whole again after a kill at a bad moment."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orchestration import processes, services
from pipelines.execute import run_stage
from schemas.errors import UsageError
from schemas.store import Store
from tests.orchestration import toys

pytestmark = pytest.mark.dagster


def demo(root: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "orchestration.cli", "demo", "--root", str(root), "--json", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(child: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    out, err = child.communicate(timeout=280)
    assert child.returncode == 0, err
    return json.loads(out), err


def test_one_dagster_run_makes_everything_and_a_second_makes_nothing(toy_rooms: None, tmp_path: Path) -> None:
    found, err = finish(demo(tmp_path, "--executor", "local"))
    assert (found["computed"], found["reused"]) == (4, 0)
    for name in ("press", "footage", "weigh", "juice"):
        assert f"> {name}" in err
        assert f"+ {name}" in err
    again, err = finish(demo(tmp_path, "--executor", "local"))
    assert again["reused"] == 4
    assert "nothing to do: 4 of 4 stages reused" in err
    assert again["stages"] == found["stages"]


def test_a_failing_stage_is_named_with_its_reason(toy_rooms: None, tmp_path: Path) -> None:
    child = demo(tmp_path, "--executor", "local", "--set", "toy.broken=true")
    out, err = child.communicate(timeout=280)
    assert (child.returncode, out) == (1, "")
    last = err.strip().splitlines()[-2:]
    assert last[0].startswith("dailies: stage juice failed: ")
    assert "the press is jammed at gear 7" in last[0]
    assert "dailies ui" in last[1]


def test_two_demos_at_once_on_one_root_are_refused(toy_rooms: None, tmp_path: Path) -> None:
    from orchestration.demo import _alone

    with _alone(str(tmp_path)), pytest.raises(UsageError, match=f"process {os.getpid()}"), _alone(str(tmp_path)):
        pass


@pytest.mark.ray
@pytest.mark.slow
def test_killed_in_the_middle_it_sweeps_and_goes_on_to_the_same_tables(
    toy_rooms: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, calm = tmp_path / "root", toys.root(tmp_path / "calm", "demo")
    settings = ("--set", "toy.apples=40", "--set", "toy.slow_s=1.0")
    child = demo(root, *settings)
    deadline = time.monotonic() + 150
    while len(list(root.glob("work/weigh/*.parquet"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.communicate()
    head = services.read(root).ray
    assert head is not None, "Ray outlives the killed demo"
    done_before = len(list(root.glob("work/weigh/*.parquet")))
    assert 3 <= done_before < 40

    found, err = finish(demo(root))
    assert "swept Dagster run" in err
    assert found["computed"] + found["reused"] == 4
    assert not [p for p in head.family if processes.is_alive(p)], "the demo ends the Ray that a demo started"
    marks = {p.name: len(p.read_text()) for p in (root / "marks").iterdir()}
    assert sum(marks.values()) <= 40 + 8, "at most what was in flight is done twice: four items per worker"
    orchard = toys.Orchard(apples=40, slow_s=1.0)
    monkeypatch.setattr(time, "sleep", lambda s: None)
    for placed in toys.PLACED:
        run_stage(placed.stage, calm, orchard, batch="demo" if placed.stage.partitioned else None)
    store = Store(root)
    for placed in toys.PLACED:
        batch = "demo" if placed.stage.partitioned else None
        for table in placed.stage.writes:
            one, other = store.committed(table, batch), calm.committed(table, batch)
            assert one is not None
            assert other is not None
            assert one.content == other.content
    with dg.DagsterInstance.from_config(str(services.dagster_home(root))) as instance:
        states = [run.status for run in instance.get_runs()]
    assert states == [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
