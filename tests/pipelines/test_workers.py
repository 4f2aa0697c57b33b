"""Children that run items: one that crashes, hangs or is killed from outside costs one row, and none outlives us."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestration import cli
from pipelines.execute import Context, Executor, Local, Output, Ray, Stage, halved, run_only, run_stage
from pipelines.running import lock
from pipelines.running.items import Failure
from pipelines.running.workers import run_items
from schemas.errors import RootBusy, UsageError
from schemas.store import Store
from tests.orchestration import toys
from tests.orchestration.toys import APPLES, WEIGH, Apple, Orchard
from tests.pipelines.poison import Taste, where


def taste_stage(crates: Sequence[tuple[str, ...]]) -> Stage:
    def run(context: Context) -> Output:
        marks = Path(context.store.path) / "marks"
        marks.mkdir(exist_ok=True)

        def failed(crate: tuple[str, ...], failure: Failure) -> dict[str, Any]:
            rows = [Apple(name=n, weight_g=None, status="failed", reason=str(failure)) for n in crate]
            return {"apples": APPLES.from_rows(rows)}

        return Output(
            context.each(
                Taste(str(marks)),
                crates,
                key="-".join,
                outputs=[APPLES],
                on_error=failed,
                deadline=lambda crate: 3.0 if "stuck" in crate[0] else 100.0,
                split=halved,
            )
        )

    return Stage("taste", 1, (), (APPLES,), run, lambda settings: None)


def failures(store: Store) -> dict[str, str]:
    return {r["name"]: r["reason"] for r in store.read(APPLES, batch="b1").to_pylist() if r["status"] != "ok"}


EXECUTORS = [Local(1), Local(4), pytest.param(Ray(workers=2), marks=pytest.mark.ray)]
CRATES = [("a",), ("deadly1",), ("b",), ("bad1",), ("stuck1",), ("c",)]
SHOWS = "`dailies stage taste --batch b1 --only={}` shows it"


@pytest.mark.parametrize("workers", EXECUTORS, ids=["one", "four", "ray"])
def test_a_crash_and_a_hang_cost_one_row_each(tmp_path: Path, workers: Executor, request: Any) -> None:
    if isinstance(workers, Ray):
        request.getfixturevalue("cluster")
    store = toys.root(tmp_path)
    stage = taste_stage(CRATES)
    run_stage(stage, store, None, batch="b1", executor=workers)
    assert failures(store) == {
        "deadly1": f"WorkerDied: it killed its worker twice; {SHOWS.format('deadly1')}",
        "bad1": "RuntimeError: worm",
        "stuck1": f"DeadlineExceeded: it took longer than 3 s; {SHOWS.format('stuck1')}",
    }
    marks = {p.name: len(p.read_text()) for p in (tmp_path / "marks").iterdir()}
    assert marks == {"a": 1, "b": 1, "c": 1, "bad1": 1, "deadly1": 2, "stuck1": 1}


def test_what_is_in_quarantine_is_not_tried_again_unless_forced(tmp_path: Path) -> None:
    store, stage = toys.root(tmp_path), taste_stage([("a",), ("deadly1",)])
    run_stage(stage, store, None, batch="b1", executor=Local(1))
    before = failures(store)
    Path(store.table_path(APPLES, "b1")).unlink()
    run_stage(stage, store, None, batch="b1", executor=Local(1))
    assert failures(store) == before
    assert (tmp_path / "marks" / "deadly1").read_text() == "xx"
    run_stage(stage, store, None, batch="b1", executor=Local(1), force=True)
    assert (tmp_path / "marks" / "deadly1").read_text() == "xxxx"
    (record,) = (tmp_path / "work" / "taste" / "quarantine").iterdir()
    assert json.loads(record.read_text())["command"] == "dailies stage taste --batch b1 --only=deadly1"


@pytest.mark.parametrize("poison", ["bad9", "deadly9"])
def test_a_failing_group_is_halved_to_the_poisonous_item(tmp_path: Path, poison: str) -> None:
    crate = (*(f"apple{i}" for i in range(3)), poison, *(f"pear{i}" for i in range(4)))
    store = toys.root(tmp_path)
    run_stage(taste_stage([crate, ("a",)]), store, None, batch="b1", executor=Local(1))
    assert list(failures(store)) == [poison]
    assert store.read(APPLES, batch="b1").num_rows == 9


def test_one_item_can_be_asked_for(tmp_path: Path) -> None:
    store, stage = toys.root(tmp_path), taste_stage([("apple",), ("deadly1",)])
    rows, failure, _ = run_only(stage, store, None, "deadly1", batch="b1", executor=Local(1))
    assert (rows, failure) == ({"apples": 1}, "WorkerDied: it killed its worker twice")
    assert run_only(stage, store, None, "app", batch="b1", executor=Local(1))[:2] == ({"apples": 1}, "")
    with pytest.raises(UsageError, match="no item is called `appel`; there are apple"):
        run_only(stage, store, None, "appel", batch="b1")
    assert store.committed(APPLES, "b1") is None


def test_the_command_in_the_row_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAILIES_ROOMS", "tests.orchestration.toys")
    common = ["--root", str(tmp_path), "--set", "toy.deadly=apple1"]
    toys.root(tmp_path)
    assert cli.main(["stage", "weigh", "--batch", "b1", *common, "--workers", "2"]) == 0
    (record,) = (tmp_path / "work" / "weigh" / "quarantine").iterdir()
    words = json.loads(record.read_text())["command"].split()
    assert words[0] == "dailies"
    capsys.readouterr()
    assert cli.main([*words[1:], *common, "--json"]) == 1
    out, _ = capsys.readouterr()
    assert json.loads(out)["failure"] == "WorkerDied: it killed its worker twice"
    assert cli.main(["stage", "weigh", "--batch", "b1", *common, "--only=apple2", "--json"]) == 0


def test_a_worker_killed_from_outside_is_replaced_and_its_item_tried_again() -> None:
    found: list[tuple[int, Any, float]] = []
    thread = threading.Thread(target=lambda: found.extend(run_items(where, [1.0], 1)))
    thread.start()
    deadline = time.monotonic() + 20
    killed = None
    while killed is None and time.monotonic() < deadline:
        killed = next((p for p in _children(os.getpid()) if "pipelines.running.workers" in _command(p)), None)
    assert killed is not None
    time.sleep(0.3)
    os.kill(killed, signal.SIGKILL)
    thread.join(60)
    ((_, pid, _),) = found
    assert isinstance(pid, int)
    assert pid != killed


def _children(pid: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(name))
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


_PARENT = """
import sys, time
from pipelines.running.workers import run_items
list(run_items(time.sleep, [600, 600], 2))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_children_end_with_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], env={**os.environ, "PYTHONPATH": os.getcwd()})
    deadline = time.monotonic() + 30
    children: list[int] = []
    while len(children) < 2 and time.monotonic() < deadline:
        children = _children(parent.pid)
        time.sleep(0.05)
    time.sleep(1.0)
    parent.kill()
    parent.wait()
    while any("pipelines.running.workers" in _command(p) for p in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [p for p in children if "pipelines.running.workers" in _command(p)] == []
    assert len(children) == 2


_HOLDER = """
import sys, time
from pipelines.running import lock
from schemas.store import Store
with lock.alone(Store(sys.argv[1]), "weigh", "b1"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_runs_of_a_stage_at_once_are_refused_and_a_dead_holder_is_no_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.5)
    store = toys.root(tmp_path)
    command = [sys.executable, "-c", _HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.getcwd()}) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RootBusy, match=rf"stage weigh of batch b1 .* process {holder.pid} on "):
            run_stage(WEIGH, store, Orchard(), batch="b1")
        toys.root(tmp_path, "b2")
        assert run_stage(WEIGH, store, Orchard(), batch="b2").computed
        holder.kill()
    assert run_stage(WEIGH, store, Orchard(), batch="b1").computed


def test_a_second_run_that_has_nothing_to_do_needs_no_lock(tmp_path: Path) -> None:
    store = toys.root(tmp_path)
    run_stage(WEIGH, store, Orchard(), batch="b1")
    with lock.alone(store, "weigh", "b1"):
        assert not run_stage(WEIGH, store, Orchard(), batch="b1").computed
