"""The whole house at once: rendered footage all the way to two optimiser steps and a generated video.

The `tiny` recipe, the local executor, the `fake` captioner backend (a captioner that was trained for seconds writes
nothing that parses).  One root is made per test session; other tests ask it questions.
"""

import json
import shutil
from pathlib import Path

import duckdb
import pytest

from orchestration import checks, cli, recipes, rooms
from pipelines.execute import Local, Result, run_stage
from schemas.ledger import SKIPPED
from schemas.store import Store
from tests.house import BATCH, SETTINGS, bring_up_to_date


def sql(root: Path, query: str) -> list[tuple[object, ...]]:
    return duckdb.sql(query.replace("ROOT", f"{root}/tables")).fetchall()


def test_every_stage_ran_and_every_table_is_there(house: Path) -> None:
    store = Store(house)
    for placed, batch in rooms.units(rooms.all_stages(), store):
        for table in placed.stage.writes:
            assert store.committed(table, batch) is not None, table.name


def test_every_table_passes_its_blocking_checks_and_one_without_rows_may_be_empty(house: Path) -> None:
    store = Store(house)
    for placed, batch in rooms.units(rooms.all_stages(), store):
        for table in placed.stage.writes:
            found = checks.findings(store, table, batch)
            failed = [c.name for c in checks.checks_of(table) if c.blocking and not found[c.name].passed]
            assert not failed, f"{table.name}: {failed}"
    no_rows = SKIPPED.empty()  # every manifest row was trained on
    assert checks.has_rows(SKIPPED, no_rows).passed


def test_nothing_is_computed_twice(house: Path) -> None:
    again: list[Result] = bring_up_to_date(house)
    assert again
    assert [r.stage for r in again if r.computed] == []


def test_every_source_ends_as_a_row_with_a_status(house: Path) -> None:
    files = {p.name for p in (house / "incoming" / BATCH).rglob("*") if p.suffix in (".mp4", ".mkv", ".webm")}
    rows = sql(house, "SELECT path, status FROM 'ROOT/videos/**/*.parquet'")
    assert {Path(str(path)).name for path, _ in rows} == files
    assert {status for _, status in rows} <= {"ok", "damaged", "unreadable", "no_video"}


def test_every_clip_has_one_verdict_per_rule_and_a_selection(house: Path) -> None:
    clips = sql(house, "SELECT count(*) FROM 'ROOT/clips/**/*.parquet'")
    assert sql(house, "SELECT count(*) FROM 'ROOT/selections/**/*.parquet'") == clips
    per_clip = sql(house, "SELECT DISTINCT count(DISTINCT rule) FROM 'ROOT/verdicts/**/*.parquet' GROUP BY clip_id")
    assert len(per_clip) == 1


def test_nothing_is_encoded_that_was_not_kept(house: Path) -> None:
    kept = sql(house, "SELECT clip_id FROM 'ROOT/selections/**/*.parquet' WHERE verdict = 'keep' ORDER BY 1")
    assert kept
    assert sql(house, "SELECT clip_id FROM 'ROOT/clip_files/**/*.parquet' ORDER BY 1") == kept
    encoded = {p.stem for p in (house / "blobs" / "clips").rglob("*.mp4")}
    assert encoded == {row[0] for row in kept}


def test_each_source_was_decoded_once(house: Path) -> None:
    assert sql(house, "SELECT max(decode_passes) FROM 'ROOT/scans/**/*.parquet'") == [(1,)]


def test_a_clip_can_be_followed_from_its_source_to_the_training_steps(house: Path) -> None:
    rows = sql(
        house,
        """SELECT m.clip_id, m.source, count(*) FROM 'ROOT/manifest/*.parquet' m
           JOIN 'ROOT/ledger/*.parquet' l USING (clip_id) GROUP BY ALL""",
    )
    assert rows
    for _, source, steps in rows:
        assert Path(str(source)).exists()
        assert isinstance(steps, int)
        assert steps >= 1


def test_the_ledger_names_only_rows_of_the_manifest_it_was_trained_on(house: Path) -> None:
    strangers = sql(
        house,
        "SELECT count(*) FROM 'ROOT/ledger/*.parquet' ANTI JOIN 'ROOT/manifest/*.parquet' USING (clip_id, manifest)",
    )
    assert strangers == [(0,)]


def test_the_manifest_is_a_snapshot_under_its_digest(house: Path) -> None:
    (snapshot,) = sorted((house / "manifests").iterdir())
    about = json.loads((snapshot / "_manifest.json").read_text())
    assert about["digest"] == snapshot.name
    rows = sql(house, f"SELECT count(*) FROM '{snapshot}/*.parquet'")
    assert rows == [(about["rows"],)]
    assert sql(house, "SELECT DISTINCT manifest FROM 'ROOT/manifest/*.parquet'") == [(snapshot.name,)]


def test_samples_are_videos_in_several_shapes(house: Path) -> None:
    rows = sql(house, "SELECT path, status, width, height FROM 'ROOT/samples/*.parquet'")
    assert {status for _, status, _, _ in rows} == {"ok"}
    assert all((house / str(path)).stat().st_size > 0 for path, _, _, _ in rows)
    assert len({(w, h) for _, _, w, h in rows}) >= 2


def test_another_root_gives_the_same_manifest(house: Path, tmp_path: Path) -> None:
    """Everything in a manifest row but the place of its source follows from content."""
    bring_up_to_date(tmp_path, until="manifest")
    query = "SELECT * EXCLUDE (source) FROM 'ROOT/manifest/*.parquet' ORDER BY clip_id"
    assert sql(tmp_path, query) == sql(house, query)


def test_a_moved_threshold_decides_again_and_decodes_nothing(house: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(house, root)
    store = Store(root)
    config = recipes.recipe("tiny", [*SETTINGS, "curation.policy.bounds=too_short.min=1.7"])
    ran = {}
    for name in ("scan", "shots", "signal_scores", "verdicts"):
        placed = rooms.named(name)
        ran[name] = run_stage(placed.stage, store, placed.config(config), batch=BATCH, executor=Local()).computed
    assert ran == {"scan": False, "shots": False, "signal_scores": False, "verdicts": True}


def test_what_was_finished_from_older_frames_is_not_taken_for_new(house: Path, tmp_path: Path) -> None:
    """A part under `work/` is named by all that its item holds: the same clips with other proxies are other items."""
    settings = ("curation.scan.proxy_fps=6",)
    tables = {}
    for name in ("with parts", "without parts"):
        root = tmp_path / name
        shutil.copytree(house, root)
        if name == "without parts":
            shutil.rmtree(root / "work")
        bring_up_to_date(root, until="signal_scores", settings=settings)
        bring_up_to_date(root, until="embeddings", settings=settings)
        tables[name] = {
            t.name: sql(root, f"SELECT * EXCLUDE (made_by) FROM 'ROOT/{t.name}/**/*.parquet' ORDER BY clip_id")
            for stage in ("signal_scores", "embeddings")
            for t in rooms.named(stage).stage.writes
        }
    assert tables["with parts"] == tables["without parts"]


def test_a_prompt_is_expanded_sampled_and_both_texts_are_in_the_credentials(
    house: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(house, root)
    words = ["sample", "--prompt", "a red square moves left", "--expand", "--size", "32x32", "--frames", "1"]
    assert cli.main([*words, "--root", str(root), "--recipe", "tiny", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expanded = found["expansion"]["expanded"]
    assert (found["prompt"], found["prompt_used"]) == ("a red square moves left", expanded)
    assert {"red", "square", "left"} <= set(expanded.lower().strip(".").replace(".", " ").split())
    assert cli.main(["credentials", found["path"], "--json"]) == 0
    made = json.loads(capsys.readouterr().out)["generation"]
    assert (made["prompt"], made["prompt_used"]) == ("a red square moves left", expanded)
