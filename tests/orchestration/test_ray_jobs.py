"""Dagster over Ray through the Jobs API, on a real cluster: what is made, what fails, and what is swept."""

import os
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orchestration import partitions
from orchestration.assets.stages import build_assets
from orchestration.ray_head import RayHead
from orchestration.ray_jobs import Job, JobFailed, RayJobs, stage_arguments, unit
from orchestration.resources import Compute, Lake
from pipelines.execute import Local, run_stage
from schemas.errors import WorldError
from schemas.store import Store
from tests.orchestration import toys
from tests.orchestration.toys import APPLES, JUICE, Orchard

pytestmark = [pytest.mark.ray, pytest.mark.dagster]


@pytest.fixture
def jobs(cluster: RayHead, toy_rooms: None, tmp_path: Path) -> RayJobs:
    return RayJobs(str(tmp_path / "root"), cluster.dashboard)


def arguments(store: Store, stage: str, *settings: str) -> tuple[str, ...]:
    batch = "b1" if stage in ("weigh", "footage") else None
    return stage_arguments(stage, root=store.root, batch=batch, recipe="demo", settings=settings)


def made_here(store: Store, settings: Orchard, *names: str) -> None:
    for name in names:
        stage = next(s for s in toys.STAGES if s.name == name)
        run_stage(stage, store, settings, batch="b1" if name == "weigh" else None, executor=Local())


def materialise(store: Store, cluster: RayHead, *settings: str, tables: tuple[str, ...]) -> Any:
    with dg.DagsterInstance.ephemeral() as instance:
        partitions.add(instance, "b1")
        return dg.materialize(
            build_assets(toys.PLACED),
            instance=instance,
            partition_key="b1" if "apples" in tables else None,
            selection=dg.AssetSelection.assets(*tables),
            resources={
                "lake": Lake(root=store.root, settings=list(settings)),
                "compute": Compute(address=cluster.dashboard),
            },
            raise_on_error=False,
        )


def test_stages_materialise_as_ray_jobs_and_equal_those_made_here(
    cluster: RayHead, toy_rooms: None, tmp_path: Path
) -> None:
    store, local = toys.root(tmp_path / "root"), toys.root(tmp_path / "local")
    settings = Orchard(bad="apple3")
    made_here(store, settings, "press")
    done = materialise(store, cluster, "toy.bad=apple3", tables=("apples", "press", "juice"))
    assert done.success
    shown = {e.asset_key.to_user_string(): e.materialization.metadata for e in done.get_asset_materialization_events()}
    assert {name: m["state"].value for name, m in shown.items()} == {
        "apples": "computed",
        "press": "reused",
        "juice": "computed",
    }
    assert shown["juice"]["ray_job"].value.startswith(f"{cluster.dashboard}/#/jobs/")
    assert shown["juice"]["litres"].value == 2.5
    made_here(local, settings, "weigh", "press", "juice")
    for table, batch in ((APPLES, "b1"), (JUICE, None)):
        one, other = store.committed(table, batch), local.committed(table, batch)
        assert one is not None
        assert other is not None
        assert (one.content, one.inputs, one.made_by) == (other.content, other.inputs, other.made_by)


def test_a_failing_job_is_tried_again_and_then_a_failure_with_the_end_of_its_log(
    cluster: RayHead, toy_rooms: None, tmp_path: Path
) -> None:
    store = toys.root(tmp_path / "root")
    made_here(store, Orchard(broken=True), "weigh", "press")
    done = materialise(store, cluster, "toy.broken=true", tables=("juice",))
    assert not done.success
    [failure] = [e.step_failure_data.user_failure_data for e in done.all_events if e.is_step_failure]
    assert "the press is jammed at gear 7" in failure.metadata["log_tail"].value
    assert "the press is jammed at gear 7" in failure.description
    assert len([e for e in done.all_events if e.is_step_up_for_retry]) == 1


def test_a_request_that_cannot_be_met_is_told_apart(jobs: RayJobs, tmp_path: Path) -> None:
    store = toys.root(tmp_path / "root")
    said: list[str] = []
    log: list[str] = []
    job = Job("one", arguments(store, "weigh", "toy.apples=0"), "runruns1")
    with pytest.raises(JobFailed) as failed:
        jobs.run(job, said.append, log.append)
    assert failed.value.job_exit_code == 2
    assert not failed.value.may_succeed_later
    assert "apples must be at least 1" in failed.value.log_tail
    assert said == [f"Ray job {job.submission_id}  {jobs.address}/#/jobs/{job.submission_id}"]
    assert "".join(log) == failed.value.log_tail


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_stopped_step_stops_its_job_and_a_left_one_is_swept(
    jobs: RayJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = toys.root(tmp_path / "root")
    name = unit(store.root, "weigh", "b1")
    slow = arguments(store, "weigh", "toy.apples=200", "toy.slow_s=1.0")

    class Terminated(BaseException):
        pass

    stopped = Job(name, slow, "stopped1")

    def terminate(*_: Any) -> Any:
        raise Terminated

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "_wait", terminate)
        with pytest.raises(Terminated):
            jobs.run(stopped)
    assert str(jobs.client.get_job_status(stopped.submission_id)) == "STOPPED"

    orphan = Job(name, slow, "orphan11")
    jobs._submit(orphan)  # its step is killed here: nobody waits for it
    wait_for(lambda: str(jobs.client.get_job_status(orphan.submission_id)) == "RUNNING")
    assert jobs.sweep(unit(store.root, "press", None)) == [], "another unit is left alone"
    assert jobs.sweep(runs=["another-run"]) == []
    later = Job(name, arguments(store, "weigh"), "later123")
    said: list[str] = []
    jobs.run(later, said.append)
    assert str(jobs.client.get_job_status(orphan.submission_id)) == "STOPPED"
    assert said[0] == f"stopping Ray job {orphan.submission_id}, which an earlier run left behind"
    assert any(line.startswith("weigh: 4/4 apples") for line in said[2:]), "progress comes back"
    assert store.committed(APPLES, "b1") is not None


def test_jobs_of_dead_runs_are_swept_by_run(jobs: RayJobs, tmp_path: Path) -> None:
    store = toys.root(tmp_path / "root")
    slow = arguments(store, "weigh", "toy.apples=200", "toy.slow_s=1.0")
    dead = Job(unit(store.root, "weigh", "b1"), slow, "deadrun1-with-more")
    jobs._submit(dead)
    assert jobs.sweep(runs=["deadrun1-with-more"]) == [dead.submission_id]


def test_another_clusters_address_in_the_environment_is_not_ours(
    cluster: RayHead, toy_rooms: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    jobs = RayJobs(str(tmp_path), cluster.dashboard)
    assert jobs.client.list_jobs() is not None
    assert "RAY_API_SERVER_ADDRESS" not in os.environ


def test_names_of_jobs_follow_from_unit_run_and_retry() -> None:
    one = Job("u", (), "0123456789", 0)
    assert one.submission_id == Job("u", ("x",), "01234567ff", 0).submission_id
    assert len({one.submission_id, Job("u", (), "0123456789", 1).submission_id, Job("v", ()).submission_id}) == 3


def test_without_a_head_the_message_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match="dailies up --root"):
        RayJobs(str(tmp_path))
