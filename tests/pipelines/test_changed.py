"""A source that changes while it is read, or after it was probed, is a row that says so; the next run takes the new."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import pipelines.ingest
import pipelines.scan.stage
from pipelines.config import CurationConfig
from pipelines.execute import run_stage
from pipelines.ingest import VIDEOS_STAGE
from pipelines.scan.stage import SCAN_STAGE
from schemas import batches
from schemas.store import Store
from schemas.videos import SCANS, VIDEOS
from tests.videos import make_video, shot

CONFIG = CurationConfig()


@pytest.fixture
def root(tmp_path: Path) -> Store:
    """A batch of one file, and beside it another that will take its place."""
    make_video(tmp_path / "footage" / "a.mkv", shot(1, 40))
    make_video(tmp_path / "other.mkv", shot(2, 60))
    store = Store(tmp_path / "root").create()
    batches.register(store, batches.Batch(name="one", folder=str(tmp_path / "footage"), kind=batches.FOOTAGE))
    return store


def only_row(store: Store, table: Any) -> dict[str, Any]:
    (row,) = store.read(table, batch="one").to_pylist()
    return row  # type: ignore[no-any-return]


def test_it_changes_while_it_is_probed(root: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pipelines.ingest.probe

    def changing(*args: Any) -> Any:
        found = real(*args)
        shutil.copy(tmp_path / "other.mkv", tmp_path / "footage" / "a.mkv")
        return found

    monkeypatch.setattr(pipelines.ingest, "probe", changing)
    run_stage(VIDEOS_STAGE, root, CONFIG, batch="one")
    row = only_row(root, VIDEOS)
    assert (row["status"], "changed while it was read" in row["reason"]) == ("unreadable", True)
    monkeypatch.undo()
    run_stage(VIDEOS_STAGE, root, CONFIG, batch="one")
    assert (only_row(root, VIDEOS)["status"], only_row(root, VIDEOS)["num_packets"]) == ("ok", 60)


@pytest.mark.parametrize("moment", ["between", "during"])
def test_it_changes_before_or_while_it_is_scanned(
    root: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    run_stage(VIDEOS_STAGE, root, CONFIG, batch="one")
    real = pipelines.scan.stage.scan

    def changing(*args: Any) -> Any:
        found = real(*args)
        shutil.copy(tmp_path / "other.mkv", tmp_path / "footage" / "a.mkv")
        return found

    if moment == "during":
        monkeypatch.setattr(pipelines.scan.stage, "scan", changing)
    else:
        shutil.copy(tmp_path / "other.mkv", tmp_path / "footage" / "a.mkv")
    run_stage(SCAN_STAGE, root, CONFIG, batch="one")
    row = only_row(root, SCANS)
    assert (row["status"], "not what was probed" in row["reason"]) == ("unreadable", True)
    monkeypatch.undo()
    for stage in (VIDEOS_STAGE, SCAN_STAGE):
        run_stage(stage, root, CONFIG, batch="one")
    assert (only_row(root, SCANS)["status"], only_row(root, SCANS)["num_frames"]) == ("ok", 60)


def test_a_new_date_alone_is_no_change(root: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_stage(VIDEOS_STAGE, root, CONFIG, batch="one")
    real = pipelines.scan.stage.scan

    def touching(*args: Any) -> Any:
        os.utime(tmp_path / "footage" / "a.mkv", (1, 1))
        return real(*args)

    monkeypatch.setattr(pipelines.scan.stage, "scan", touching)
    run_stage(SCAN_STAGE, root, CONFIG, batch="one")
    assert only_row(root, SCANS)["status"] == "ok"
