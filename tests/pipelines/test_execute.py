"""Stages and executors: nothing is done twice, nothing is lost, and both executors give the same rows."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from orchestration.ray_head import RayHead
from pipelines.execute import Executor, Local, Output, Ray, Stage, executor, reusable, run_stage
from schemas.errors import ConfigError, MissingTable, ModelError
from schemas.store import Store
from tests.orchestration import toys
from tests.orchestration.toys import APPLES, JUICE, WEIGH, Orchard

LOADED = dataclasses.replace(WEIGH, run=toys.weigh_loaded)
STAGES = {s.name: s for s in toys.STAGES}


def visits(store: Store) -> dict[str, int]:
    """How often each apple was weighed."""
    return {p.name: len(p.read_text()) for p in sorted((Path(store.path) / "marks").iterdir())}


def rows(store: Store) -> list[dict[str, Any]]:
    return store.read(APPLES, batch="b1").to_pylist()


def test_a_second_run_computes_nothing_and_says_so(tmp_path: Path) -> None:
    store = toys.root(tmp_path)
    assert reusable(WEIGH, store, Orchard(), batch="b1") is None
    first = run_stage(WEIGH, store, Orchard(), batch="b1")
    again = run_stage(WEIGH, store, Orchard(), batch="b1")
    assert (first.computed, again.computed) == (True, False)
    assert again.rows == first.rows == {"apples": 4}
    assert again.metrics == first.metrics
    assert set(visits(store).values()) == {1}
    assert reusable(WEIGH, store, Orchard(), batch="b1") is not None


@pytest.mark.parametrize("change", ["settings", "version", "input", "damage", "force"])
def test_what_matters_makes_it_run_again(tmp_path: Path, change: str) -> None:
    store = toys.root(tmp_path)
    juice, settings = STAGES["juice"], Orchard()
    for name in ("weigh", "press", "juice"):
        run_stage(STAGES[name], store, settings, batch="b1" if name == "weigh" else None)
    if change == "settings":
        settings = Orchard(slow_s=0.01)
    elif change == "version":
        juice = dataclasses.replace(juice, version=2)
    elif change == "input":
        run_stage(WEIGH, store, Orchard(apples=5), batch="b1")
    elif change == "damage":
        path = Path(store.table_path(JUICE))
        path.write_bytes(path.read_bytes()[:-20])
    assert run_stage(juice, store, settings, force=change == "force").computed


def test_an_input_made_again_with_equal_rows_changes_nothing_downstream(tmp_path: Path) -> None:
    store = toys.root(tmp_path)
    for name in ("weigh", "press", "juice"):
        run_stage(STAGES[name], store, Orchard(), batch="b1" if name == "weigh" else None)
    run_stage(WEIGH, store, Orchard(), batch="b1", force=True)
    assert not run_stage(STAGES["juice"], store, Orchard()).computed


def test_a_missing_input_names_the_table(tmp_path: Path) -> None:
    store = toys.root(tmp_path)
    with pytest.raises(MissingTable, match=r"`apples`.*never made"):
        run_stage(STAGES["juice"], store, Orchard())


@pytest.mark.parametrize(("name", "batch", "word"), [("weigh", None, "needs --batch"), ("press", "b1", "takes no")])
def test_a_batch_is_asked_for_where_there_is_one(tmp_path: Path, name: str, batch: str | None, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        run_stage(STAGES[name], toys.root(tmp_path), Orchard(), batch=batch)


def test_an_item_that_raises_is_a_row_and_is_tried_again(tmp_path: Path) -> None:
    store = toys.root(tmp_path)
    run_stage(WEIGH, store, Orchard(bad="apple2"), batch="b1")
    assert [(r["name"], r["status"], r["reason"]) for r in rows(store)][2] == ("apple2", "failed", "RuntimeError")
    assert sum(r["status"] == "ok" for r in rows(store)) == 3
    run_stage(WEIGH, store, Orchard(bad="apple2"), batch="b1", force=True)
    assert visits(store) == {"apple0": 1, "apple1": 1, "apple2": 2, "apple3": 1}


def test_a_table_that_was_not_declared_cannot_be_read(tmp_path: Path) -> None:
    def peek(context: Any) -> Any:
        return context.read(APPLES)

    sneaky = Stage("press", 1, (), (toys.PRESS,), peek, lambda s: None)
    with pytest.raises(ValueError, match="does not declare"):
        run_stage(sneaky, toys.root(tmp_path), Orchard())


def test_an_unknown_executor_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="`slurm`"):
        executor("slurm")
    with pytest.raises(ConfigError, match="--workers"):
        executor("local", 0)
    assert (executor("inline"), executor("local"), executor("local", 3)) == (Local(), Local(1), Local(3))


_KILLED = """
import sys
from pipelines.execute import run_stage
from tests.orchestration import toys
from schemas.store import Store
run_stage(toys.WEIGH, Store(sys.argv[1]), toys.Orchard(apples=8, slow_s=float(sys.argv[2])), batch="b1")
"""


def test_killed_in_the_middle_finished_items_are_not_done_again(tmp_path: Path) -> None:
    store, calm = toys.root(tmp_path / "killed"), toys.root(tmp_path / "calm")
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    settings = Orchard(apples=8, slow_s=0.25)
    child = subprocess.Popen([sys.executable, "-c", _KILLED, store.root, "0.25"], env=environment)
    deadline = time.monotonic() + 60
    while len(list(Path(store.path).glob("work/weigh/*.parquet"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    finished = len(list(Path(store.path).glob("work/weigh/*.parquet")))
    assert 3 <= finished < 8
    assert store.committed(APPLES, "b1") is None
    before = visits(store)
    assert run_stage(WEIGH, store, settings, batch="b1").computed
    after = visits(store)
    assert sum(after.values()) - sum(before.values()) == 8 - finished
    run_stage(WEIGH, calm, settings, batch="b1")
    assert store.committed(APPLES, "b1") == dataclasses.replace(_committed(calm), metrics=_committed(store).metrics)


def _committed(store: Store) -> Any:
    found = store.committed(APPLES, "b1")
    assert found is not None
    return found


@pytest.mark.ray
@pytest.mark.parametrize("stage", [WEIGH, LOADED], ids=["tasks", "actors"])
def test_both_executors_give_equal_tables_failures_included(tmp_path: Path, cluster: RayHead, stage: Stage) -> None:
    settings = Orchard(apples=9, bad="apple4")
    local, ray = toys.root(tmp_path / "local"), toys.root(tmp_path / "ray")
    run_stage(stage, local, settings, batch="b1", executor=Local())
    run_stage(stage, ray, settings, batch="b1", executor=Ray(workers=2))
    assert _committed(local).content == _committed(ray).content
    assert _committed(local).inputs == _committed(ray).inputs
    assert rows(ray)[4]["reason"] == "RuntimeError"


@pytest.mark.ray
@pytest.mark.parametrize(("stage", "workers"), [(WEIGH, 2), (LOADED, 2), (LOADED, 1)])
def test_an_item_that_kills_its_worker_is_one_row_and_the_others_are_whole(
    tmp_path: Path, cluster: RayHead, stage: Stage, workers: int
) -> None:
    settings = Orchard(apples=8, deadly="apple1")
    store = toys.root(tmp_path)
    run_stage(stage, store, settings, batch="b1", executor=Ray(workers=workers))
    assert [r["status"] for r in rows(store)] == ["ok", "failed", *["ok"] * 6]
    assert rows(store)[1]["reason"] == "WorkerDied"


def _no_weights() -> Any:
    raise ModelError("weights are cut short")


def _weigh_without_model(context: Any) -> Any:
    made = context.each(_no_weights, ["apple0"], key=str, outputs=[APPLES], on_error=lambda i, f: {}, loaded=True)
    return Output(made)


@pytest.mark.ray
@pytest.mark.parametrize("workers", [Local(), Ray(workers=1)], ids=["local", "ray"])
def test_a_model_that_does_not_load_stops_the_stage(tmp_path: Path, cluster: RayHead, workers: Executor) -> None:
    store = toys.root(tmp_path)
    with pytest.raises(ModelError, match="cut short"):
        run_stage(dataclasses.replace(WEIGH, run=_weigh_without_model), store, Orchard(), batch="b1", executor=workers)
    assert store.committed(APPLES, "b1") is None


def test_no_items_give_an_empty_table_with_its_schema(tmp_path: Path) -> None:
    def nothing(context: Any) -> Any:
        made = context.each(lambda x: {}, [], key=str, outputs=[APPLES], on_error=lambda i, f: {})
        return Output(made)

    store = toys.root(tmp_path)
    run_stage(dataclasses.replace(WEIGH, run=nothing), store, Orchard(), batch="b1")
    empty = store.read(APPLES, batch="b1")
    assert empty.num_rows == 0
    assert pa.schema([f.remove_metadata() for f in APPLES.schema]) == empty.schema
