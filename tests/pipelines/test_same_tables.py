"""The same input gives the same bytes: whoever runs it, with however many workers, killed on the way or not."""

from pathlib import Path

import pytest

from benchmarks import kill_curation, mutations
from orchestration.ray_head import RayHead
from pipelines.execute import Local
from schemas.store import Store

FOOTAGE = Path(__file__).parents[3] / "shared" / "footage"


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small footage, and a root curated from it in peace by one worker."""
    base = tmp_path_factory.mktemp("same")
    kill_curation.render(base / "footage")
    kill_curation.curate(base / "calm", base / "footage", "local", 1)
    assert len(kill_curation.blobs(base / "calm")) >= 4
    return base


def _same(root: Path, calm: Path) -> None:
    assert kill_curation.contents(root) == kill_curation.contents(calm / "calm")
    assert kill_curation.blobs(root) == kill_curation.blobs(calm / "calm")


@pytest.mark.parametrize(("name", "workers"), [("inline", 1), ("local", 4)])
def test_children_or_none_make_no_difference(calm: Path, tmp_path: Path, name: str, workers: int) -> None:
    kill_curation.curate(tmp_path / "root", calm / "footage", name, workers)
    _same(tmp_path / "root", calm)


@pytest.mark.ray
@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_ray_makes_no_difference(calm: Path, tmp_path: Path, cluster: RayHead, workers: int) -> None:
    kill_curation.curate(tmp_path / "root", calm / "footage", "ray", workers)
    _same(tmp_path / "root", calm)


def test_kills_make_no_difference(calm: Path, tmp_path: Path) -> None:
    """Three of the twenty that `benchmarks/kill_curation.py` does; the command, its group, the command."""
    root, folder = tmp_path / "root", calm / "footage"
    for number, after_s in enumerate((2.5, 4.0, 3.2)):
        if kill_curation.run_and_kill(root, folder, after_s, everything=number == 1):
            break
    kill_curation.curate(root, folder, "local", 2)
    _same(root, calm)


@pytest.mark.footage
@pytest.mark.skipif(not FOOTAGE.is_dir(), reason="the real footage is not at ../shared/footage")
def test_broken_files_end_as_rows(tmp_path: Path) -> None:
    """Twenty of the five hundred that `benchmarks/mutations.py` makes, of other files and another seed."""
    names = mutations.write_group(FOOTAGE, tmp_path / "broken", 0, 20, seed=7, small=30_000)
    found = mutations.run_group(Store(tmp_path / "root").create(), tmp_path / "broken", "broken", Local(1))
    assert found["files"] == len(names) == 20
    assert found["wrong"] == []
    assert (found["killed_their_worker"], found["over_deadline"], found["failed_by_an_exception_or_worse"]) == (0, 0, 0)
    assert sum(found["videos"].values()) == 20
    assert set(found["scans"]) >= {"ok", "unreadable"}
