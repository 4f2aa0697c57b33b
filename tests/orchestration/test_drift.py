"""Drift: a score whose mean wandered since its asset's last materialisation warns, and stops nothing."""

import dataclasses
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration import drift, partitions, rooms
from orchestration.assets import describe
from orchestration.assets.stages import build_assets
from orchestration.resources import Compute, Lake
from pipelines.execute import Context, Output, Stage
from schemas.scores import score_table
from tests.orchestration import toys

SWEETNESS = score_table("sweetness", {"sugar": ("Sugar.", "g", "[0, inf)"), "acid": ("Acid.", "g", "[0, inf)")})


def rows(*sugar: float | None) -> Any:
    return SWEETNESS.from_rows(
        [{"clip_id": f"c{i}", "sugar": s, "acid": None, "error": "", "made_by": ""} for i, s in enumerate(sugar)]
    )


def test_moments_leave_out_nulls_and_what_is_all_null() -> None:
    assert drift.moments(SWEETNESS, rows(1.0, 3.0, None, float("nan"))) == {"mean_sugar": 2.0, "std_sugar": 1.0}
    assert drift.moments(SWEETNESS, rows()) == {}


def test_the_first_run_is_held_against_nothing() -> None:
    assert drift.finding({}, {"mean_sugar": 5.0, "std_sugar": 1.0}) == drift.Finding(
        True, {"compared": 0, "limit_in_spreads": 0.5}
    )


def test_a_constant_that_changes_has_moved() -> None:
    before = {"mean_sugar": 1.0, "std_sugar": 0.0}
    assert drift.finding(before, {"mean_sugar": 1.0}).passed
    assert drift.finding(before, {"mean_sugar": 1.1}).numbers["moved_sugar"] == "from a constant"


@given(mean=st.floats(-1e3, 1e3), std=st.floats(1e-3, 1e3), spreads=st.floats(-3, 3))
def test_a_mean_may_move_by_half_a_spread(mean: float, std: float, spreads: float) -> None:
    found = drift.finding({"mean_sugar": mean, "std_sugar": std}, {"mean_sugar": mean + spreads * std})
    if abs(abs(spreads) - 0.5) > 1e-3:
        assert found.passed == (abs(spreads) < 0.5)


@dataclasses.dataclass(frozen=True)
class Taste:
    """A stage whose scores are what a file in the root says."""

    def __call__(self, context: Context) -> Output:
        sugar = [float(x) for x in (Path(context.store.path) / "sugar").read_text().split()]
        return Output({SWEETNESS.name: rows(*sugar)})


@pytest.mark.dagster
def test_dagster_shows_the_moments_and_warns_when_they_move(tmp_path: Path, toy_rooms: None) -> None:
    store = toys.root(tmp_path / "root")
    version = 0
    with dg.DagsterInstance.ephemeral() as instance:
        partitions.add(instance, "b1")

        def taste(sugar: str) -> Any:
            nonlocal version
            version += 1
            (Path(store.path) / "sugar").write_text(sugar)
            stage = Stage("taste", version, (), (SWEETNESS,), Taste(), lambda s: s)
            placed = rooms.place([("toy", stage, lambda recipe: recipe.toy)], after={})
            return dg.materialize(
                build_assets(placed),
                instance=instance,
                partition_key="b1",
                resources={"lake": Lake(root=store.root), "compute": Compute(executor="local")},
            )

        def drifted(done: Any) -> list[bool]:
            assert done.success, "drift stops nothing"
            return [not e.passed for e in done.get_asset_check_evaluations() if e.check_name == drift.NAME]

        first = taste("1 2 3")
        [event] = first.get_asset_materialization_events()
        assert event.materialization.metadata["mean_sugar"].value == 2.0
        assert drifted(first) == [False]
        assert drifted(taste("1.1 2.1 3.1")) == [False]
        assert drifted(taste("5 6 7")) == [True]
        assert drifted(taste("5 6 7")) == [False]  # what it moved to is what the next one is held against


def test_lineage_names_columns_that_are_carried_on_and_claims_no_others() -> None:
    placed = {p.name: p for p in rooms.all_stages()}
    [manifest] = [t for t in placed["manifest"].stage.writes if t.name == "manifest"]
    shown = describe.lineage(manifest, placed["manifest"].stage)["dagster/column_lineage"].deps_by_column
    assert dg.TableColumnDep(dg.AssetKey("clips"), "clip_id") in shown["clip_id"]
    assert "made_by" not in shown
    assert not set(shown) - set(manifest.schema.names)
    footage = placed["footage"].stage
    assert describe.lineage(footage.writes[0], footage) == {}
