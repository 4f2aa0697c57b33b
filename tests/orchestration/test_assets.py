"""Assets: one per table of every stage, checked before the next one reads it, described as people see them."""

from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from orchestration import checks, definitions, partitions, rooms
from orchestration.assets import describe
from orchestration.assets.stages import build_assets
from orchestration.resources import Compute, Lake
from orchestration.sensors import MARKER, incoming_footage, new_batches
from pipelines.execute import Output
from schemas import batches
from schemas.store import Store
from schemas.videos import SCANS, Scan
from tests.orchestration import toys
from tests.orchestration.toys import APPLES, Apple

pytestmark = pytest.mark.dagster


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    return definitions.build(rooms.all_stages(), Lake(root="nowhere"), Compute())


def test_the_code_location_is_whole(defs: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(defs)
    assert {s.name for s in defs.sensors or ()} == {"incoming_footage"}
    for name in ("everything", "batch", "train"):
        assert defs.resolve_job_def(name)


def test_every_table_of_every_stage_is_an_asset(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    want = {t.name: (p, t) for p in rooms.all_stages() for t in p.stage.writes}
    assert {k.to_user_string() for k in graph.get_all_asset_keys()} == set(want)
    for name, (placed, table) in want.items():
        node = graph.get(dg.AssetKey(name))
        assert node.is_partitioned == table.partitioned
        assert node.group_name == placed.room
        assert node.code_version == str(placed.stage.version)
        assert node.owners
        assert node.kinds >= {"parquet", "ray"}
        schema = node.metadata["dagster/column_schema"]
        assert [c.name for c in schema.columns] == table.schema.names
        assert all(c.description for c in schema.columns)


def test_assets_depend_on_the_tables_that_their_stages_read(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    made = {t.name for p in rooms.all_stages() for t in p.stage.writes}
    for placed in rooms.all_stages():
        for table in placed.stage.writes:
            parents = {k.to_user_string() for k in graph.get(dg.AssetKey(table.name)).parent_keys}
            read = {t.name for t in placed.stage.reads + placed.stage.optional} & made
            assert read - {table.name} <= parents, placed.name
    assert dg.AssetKey("truth_videos") in graph.get(dg.AssetKey("videos")).parent_keys


def test_the_job_for_real_footage_renders_none_and_trains_what_it_needs(defs: dg.Definitions) -> None:
    keys = {k.to_user_string() for k in defs.resolve_job_def("batch").asset_layer.executable_asset_keys}
    assert {"videos", "scans", "verdicts", "captions", "clip_checkpoint", "captioner_checkpoint"} <= keys
    assert not keys & {"truth_videos", "manifest", "dit_checkpoint"}


@pytest.fixture
def orchard(tmp_path: Path, toy_rooms: None) -> Store:
    return toys.root(tmp_path / "root")


def materialise(store: Store, *settings: str, names: tuple[str, ...] = ("footage", "weigh")) -> Any:
    """A real Dagster run of some toy stages in this process."""
    assets = build_assets(toys.PLACED)
    keys = [t.name for p in toys.PLACED if p.name in names for t in p.stage.writes]
    with dg.DagsterInstance.ephemeral() as instance:
        partitions.add(instance, "b1")
        return dg.materialize(
            assets,
            instance=instance,
            partition_key="b1" if any(p.stage.partitioned for p in toys.PLACED if p.name in names) else None,
            selection=dg.AssetSelection.assets(*keys),
            resources={"lake": Lake(root=store.root, settings=list(settings)), "compute": Compute(executor="local")},
            raise_on_error=False,
        )


def test_a_materialisation_says_what_it_made(orchard: Store) -> None:
    done = materialise(orchard)
    assert done.success
    [event] = [e for e in done.get_asset_materialization_events() if e.asset_key == dg.AssetKey("apples")]
    shown = event.materialization.metadata
    assert shown["state"].value == "computed"
    assert shown["dagster/partition_row_count"].value == 4
    assert shown["ok_share"].value == 1.0
    assert shown["seconds"].value >= 0
    assert shown["sheet"].value.startswith("![sheet](data:image/jpeg;base64,")
    commit = orchard.committed(APPLES, "b1")
    assert commit is not None
    assert event.materialization.tags["dagster/data_version"] == commit.content
    again = materialise(orchard)
    [event] = [e for e in again.get_asset_materialization_events() if e.asset_key == dg.AssetKey("apples")]
    assert event.materialization.metadata["state"].value == "reused"


def test_a_failed_blocking_check_stops_what_is_downstream(orchard: Store) -> None:
    done = materialise(orchard, "toy.apples=1", "toy.bad=apple0", names=("footage", "weigh", "press", "juice"))
    assert done.success, "a failed apple is a row; the toy table has no check on status"
    checks._BY_TABLE["apples"] = (checks.Check("few_failures", "Not all bad.", checks.few_failures, True, ("status",)),)
    try:
        done = materialise(orchard, "toy.apples=1", "toy.bad=apple0", names=("footage", "weigh", "press", "juice"))
    finally:
        del checks._BY_TABLE["apples"]
    assert not done.success
    failed = [e for e in done.get_asset_check_evaluations() if not e.passed]
    assert [(e.asset_key.to_user_string(), e.check_name) for e in failed] == [("apples", "few_failures")]
    assert not [e for e in done.get_asset_materialization_events() if e.asset_key == dg.AssetKey("juice")]


def test_an_error_of_the_stage_is_the_failure_of_the_asset(orchard: Store) -> None:
    done = materialise(orchard, names=("juice",))
    assert not done.success
    [failure] = [e for e in done.all_events if e.is_step_failure]
    assert "reads table `apples`" in failure.step_failure_data.user_failure_data.description


def apples(*names: str, status: str = "ok") -> pa.Table:
    return APPLES.from_rows([Apple(name=n, weight_g=None, status=status) for n in names])


def test_checks_find_what_they_look_for() -> None:
    assert checks.has_rows(APPLES, apples("a")).passed
    assert not checks.has_rows(APPLES, apples()).passed
    assert not checks.unique_key(APPLES, apples("a", "a")).passed
    assert checks.unique_key(APPLES, apples("a", "b")).passed
    assert checks.no_nulls(APPLES, apples("a")).passed
    nulled = apples("a").set_column(0, "name", pa.array([None], pa.string()))
    assert checks.no_nulls(APPLES, nulled).numbers == {"nulls_in_name": 1}
    assert not checks.few_failures(APPLES, apples("a", status="failed")).passed
    twice = SCANS.from_rows([Scan(video_id="v", status="ok", num_frames=9, decode_passes=2, damaged=[])])
    assert not checks.one_decode_pass(SCANS, twice).passed


def test_every_check_of_every_table_reads_columns_that_exist() -> None:
    for placed in rooms.all_stages():
        for table in placed.stage.writes:
            known = checks.checks_of(table)
            assert {c for check in known for c in check.columns} <= set(table.schema.names), table.name
            assert len({c.name for c in known}) == len(known)
            for check in known:
                check.run(table, table.empty())


def test_a_picture_that_is_too_large_is_named_and_not_shown(orchard: Store) -> None:
    def run(context: Any) -> Output:
        made = toys.weigh(context)
        return Output(made.tables, made.metrics, {"small": b"x" * 10, "large": b"x" * 200_000})

    import dataclasses

    from pipelines.execute import run_stage

    run_stage(dataclasses.replace(toys.WEIGH, run=run), orchard, toys.Orchard(), batch="b1")
    commit = orchard.committed(APPLES, "b1")
    assert commit is not None
    shown = describe.pictures(orchard, commit)
    assert "base64" in shown["small"].value
    assert shown["large"].endswith("large.jpg")


def test_numbers_that_json_cannot_hold_are_text(orchard: Store) -> None:
    from schemas.store import Commit

    commit = Commit("apples", "b1", 1, "c", "i", "m", {"bad": float("nan"), "none": None, "many": list(range(9999))})
    shown = describe.metadata(orchard, APPLES, commit, computed=True)
    assert shown["bad"] == "nan"
    assert "none" not in shown
    assert len(shown["many"]) == 2000


def drop(root: Store, name: str, marker: bool = True) -> None:
    folder = Path(root.path) / "incoming" / name
    folder.mkdir(parents=True)
    (folder / "film.mp4").write_bytes(b"x")
    if marker:
        (folder / MARKER).touch()


def test_a_complete_folder_becomes_a_batch_once(tmp_path: Path) -> None:
    store = Store(tmp_path).create()
    drop(store, "monday")
    drop(store, "half-copied", marker=False)
    drop(store, "bad name")
    batches.register(store, batches.Batch(name="demo", folder=str(tmp_path / "incoming/demo"), kind="synthetic"))
    drop(store, "demo")
    with dg.DagsterInstance.ephemeral() as instance:
        lake = Lake(root=store.root)
        result = incoming_footage(dg.build_sensor_context(instance=instance, resources={"lake": lake}))
        assert isinstance(result, dg.SensorResult)
        assert [(r.run_key, r.partition_key) for r in result.run_requests or ()] == [("monday", "monday")]
        [request] = result.dynamic_partitions_requests or ()
        assert list(request.partition_keys) == ["monday"]
        assert batches.get(store, "monday").kind == batches.FOOTAGE
        again = incoming_footage(dg.build_sensor_context(instance=instance, resources={"lake": lake}))
        assert isinstance(again, dg.SkipReason)
    assert batches.get(store, "demo").kind == "synthetic"
    assert new_batches(store) == []
