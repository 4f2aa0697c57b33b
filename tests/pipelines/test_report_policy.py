"""The report's parts on the policy and on cost."""

from pathlib import Path

import numpy as np
import pytest

from orchestration import cli
from pipelines.execute import run_stage
from pipelines.policy.scoreboard import SCORE_TABLES, SCOREBOARD
from pipelines.report import cost as report_cost
from pipelines.report import floor
from pipelines.report import policy as report_policy
from pipelines.report import stage as report
from pipelines.video.write import write_video
from schemas import batches
from schemas.clips import CLIPS
from schemas.errors import UsageError
from schemas.report import REPORT
from schemas.store import Store
from schemas.table import Table
from schemas.videos import FRAMES, SCANS, VIDEOS
from tests.orchestration import films
from tests.pipelines import boards


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Forty clips of three videos, each with one proxy."""
    store = Store(tmp_path / "root").create()
    batches.register(store, batches.Batch(name="a", folder=str(tmp_path), kind=batches.FOOTAGE))
    clips, scores = boards.random_clips(5, 40)
    boards.commit(store, "a", clips, scores)
    spans = [{"clip_id": c.clip_id, "video_id": c.video_id, "start_frame": i, "end_frame": i + 1, "width": c.width,
              "height": c.height, "start_s": 0.0, "end_s": c.end_s} for i, c in enumerate(clips)]  # fmt: skip
    put(store, CLIPS, *spans)
    proxies = [(c.video_id, i) for i, c in enumerate(clips)]
    put(store, FRAMES, *[{"video_id": v, "frame_index": i, "jpeg": films.jpeg(i * 5)} for v, i in proxies])
    return store


def put(store: Store, table: Table, *rows: dict[str, object], cpu_s: float = 1.0) -> None:
    filled = table.from_rows([films.row(table, **r) for r in rows])
    metrics = {"cpu_s": cpu_s, "seconds": 2.0}
    store.commit(table, filled, batch="a" if table.partitioned else None, inputs=table.name, metrics=metrics)


def page(store: Store) -> str:
    run_stage(report.STAGE, store, None, force=True)
    return store.read_bytes(*report.PAGE.split("/")).decode()


def test_every_scorer_on_the_list_has_a_section(store: Store) -> None:
    page(store)
    rows = sorted(store.read(REPORT).to_pylist(), key=lambda r: r["position"])
    sections = [r["section"] for r in rows]
    assert [f"Score: {t.name.removeprefix('score_')}" for t in SCORE_TABLES] == [s for s in sections if ": " in s]


def test_clips_on_both_sides_of_each_threshold_are_shown(store: Store) -> None:
    text = page(store)
    rows = {r["section"]: r for r in store.read(REPORT).to_pylist()}
    assert rows["At each threshold"]["pictures"] > 60, "six bounds with up to twelve clips on either side"
    for words in ("dark: score_luma.bright at least 0.3", "blur: score_blur.edge at most 0.9", "blur min 0.2"):
        assert words in text
    assert text.count("just inside: passes") == 2 * 6, "as caption and as the picture's text"
    assert "clips that both reject" in text
    assert rows["Where clips fall"]["rows"] == 40


def test_beside_a_bound_lie_the_nearest_on_either_side() -> None:
    rng = np.random.default_rng(0)
    score = np.append(rng.random(200), [np.nan, 0.5])
    ids = np.array([f"{i:03d}" for i in range(202)], dtype=object)
    for side in ("min", "max"):
        wrong, right = report_policy.beside(score, ids, 0.5, side, most=9)
        assert len(wrong) == len(right) == 9
        assert 201 in right, "a score on the bound is kept"
        rejected = score < 0.5 if side == "min" else score > 0.5
        assert rejected[wrong].all()
        assert not rejected[right].any()
        for rows, those in ((wrong, rejected), (right, ~rejected & np.isfinite(score))):
            farther = np.delete(np.flatnonzero(those), np.searchsorted(np.flatnonzero(those), sorted(rows)))
            assert np.abs(score[rows] - 0.5).max() <= np.abs(score[farther] - 0.5).min()
            assert (np.diff(np.abs(score[rows] - 0.5)) >= 0).all()


@pytest.mark.parametrize("known", [[0.0] * 9, [1.0, 2.0], list(np.random.default_rng(1).normal(size=500)), [3.0]])
@pytest.mark.parametrize("bounds", [[], [0.5], [-7.0, 900.0]])
def test_every_score_is_in_a_bar_and_every_bound_on_an_edge(known: list[float], bounds: list[float]) -> None:
    counts, edges = report_policy.bins(np.array(known), bounds)
    assert counts.sum() == len(known)
    assert (np.diff(edges) > 0).all()
    assert set(bounds) <= set(edges.tolist())


def test_cost_is_on_the_page_and_not_in_its_digest(store: Store) -> None:
    put(store, VIDEOS, {"path": "a.mp4"}, cpu_s=12.5)
    first, digest = page(store), store.read(REPORT)["page_digest"].to_pylist()
    put(store, VIDEOS, {"path": "a.mp4"}, cpu_s=99.5)
    second = page(store)
    assert "12.5" in first
    assert "99.5" in second
    assert store.read(REPORT)["page_digest"].to_pylist() == digest
    rows = {r["stage"]: r for r in report_cost.ledger(store)}
    assert rows["videos"]["cpu_s"] == 99.5
    assert SCOREBOARD.name not in rows, "a table that does not say what it cost is left out"


def test_the_decode_floor_is_measured_on_the_sources(store: Store, tmp_path: Path) -> None:
    assert "was not measured" in (put(store, SCANS, {"video_id": "v0"}, cpu_s=2.0), page(store))[1]
    put(store, VIDEOS, {"path": "gone.mp4", "folder": str(tmp_path), "status": "ok", "duration_s": 2.0})
    with pytest.raises(UsageError, match="no source"):
        floor.record(store, ["a"])
    pictures = np.random.default_rng(0).integers(0, 255, (50, 96, 160, 3), np.uint8)
    write_video(tmp_path / "film.mp4", pictures, 25.0)
    video = {"folder": str(tmp_path), "status": "ok", "coded_width": 160, "coded_height": 96, "fps": 25.0}
    twice = [{"path": n, "video_id": n, "duration_s": 2.0, **video} for n in ("film.mp4", "gone.mp4")]
    put(store, VIDEOS, *twice)
    assert cli.main(["report", "--decode-floor", "--root", store.root, "--recipe", "tiny"]) == 0
    known = report_cost.floor(store)
    assert known is not None
    assert (known["sources"], known["sources_of_all"]) == (1, 2)
    assert known["cpu_s_of_all"] == pytest.approx(2 * known["cpu_s"], abs=0.002)
    text = store.read_bytes(*report.PAGE.split("/")).decode()
    assert "times the decode floor" in text
