"""The footage stage: whole files, exact truth, every defect, the same bytes whatever happened on the way."""

import collections
import dataclasses
import hashlib
import itertools
import json
import types
from pathlib import Path

import av
import pytest

from pipelines.execute import Result, executor, run_stage
from pipelines.synthetic import edit, footage
from pipelines.synthetic.defects import FILE_DEFECTS, SHOT_DEFECTS
from pipelines.synthetic.edit import FootageConfig, plan_video
from pipelines.synthetic.world import ASPECTS, WorldConfig
from schemas import batches
from schemas.store import Store
from schemas.truth import TRUTH_SHOTS, TRUTH_VIDEOS

TINY = FootageConfig(
    num_videos=8,
    min_shots=3,
    max_shots=4,
    min_shot_s=0.6,
    max_shot_s=0.9,
    short_side_px=64,
    defects_per_video=2.0,
    copy_every=7,
    corrupt_every=9,
    gradual=0.5,
)


def _make(root: Path, config: FootageConfig = TINY, *, force: bool = False) -> Result:
    store = Store(root).create()
    batches.register(store, batches.Batch(name="b", folder=str(root / "files"), kind=batches.SYNTHETIC))
    whole = types.SimpleNamespace(synthetic=types.SimpleNamespace(world=WorldConfig(), footage=config))
    return run_stage(footage.FOOTAGE, store, whole, batch="b", force=force)


def _bytes(root: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((root / "files").iterdir())}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("footage")
    _make(root)
    return root


def test_frame_counts_and_sizes_of_the_files_are_those_of_the_truth(made: Path) -> None:
    for row in Store(made).read(TRUTH_VIDEOS, batch="b").to_pylist():
        if row["defect"] == "corrupt":
            continue
        with av.open(str(made / "files" / row["path"])) as container:
            frames = list(container.decode(video=0))
            rate = container.streams.video[0].average_rate
        assert (len(frames), frames[0].width, frames[0].height) == (row["num_frames"], row["width"], row["height"])
        assert rate is not None
        assert float(rate) == pytest.approx(row["fps"], rel=1e-3)


def test_all_aspects_containers_and_boundaries_are_there(made: Path) -> None:
    videos = Store(made).read(TRUTH_VIDEOS, batch="b").to_pylist()
    assert {v["aspect"] for v in videos} == set(ASPECTS)
    assert {Path(v["path"]).suffix for v in videos} == {".mp4", ".mkv", ".webm"}
    cuts = set(Store(made).read(TRUTH_SHOTS, batch="b")["cut_in"].to_pylist())
    assert cuts == {"start", "hard", "fade", "dissolve"}


def test_flashes_change_nothing_else_of_the_plan() -> None:
    """They come from draws of their own, so footage without them is the footage with them less its light."""
    dark, lit = (dataclasses.replace(TINY, num_videos=30, flashes=share) for share in (0.0, 1.0))
    flashed = 0
    for i in range(30):
        plans = [plan_video(config, WorldConfig(), "b", i) for config in (dark, lit)]
        assert plans[0] == dataclasses.replace(
            plans[1], shots=tuple(dataclasses.replace(s, flash=None) for s in plans[1].shots)
        )
        for shot in plans[1].shots:
            if shot.flash is not None:
                flashed += 1
                assert shot.defect == "none"
                assert 0 < len(shot.flash.light) <= max(1, 0.16 * plans[1].fps)
                assert 0 < shot.flash.start < shot.num_frames - len(shot.flash.light)
    assert flashed > 10


def test_a_flash_washes_out_its_frames_and_no_others() -> None:
    config = dataclasses.replace(TINY, flashes=1.0)
    plans = (plan_video(config, WorldConfig(), "b", i) for i in range(30))
    plan = next(p for p in plans if any(s.flash for s in p.shots))
    shot = next(s for s in plan.shots if s.flash is not None)
    assert shot.flash is not None
    light = [f.mean() for f in edit.render_video(plan)][shot.start_frame : shot.end_frame]
    start, end = shot.flash.start, shot.flash.start + len(shot.flash.light)
    assert min(light[start:end]) > max(*light[:start], *light[end:]) + 20


def test_shots_tile_their_file(made: Path) -> None:
    frames = {v["path"]: v["num_frames"] for v in Store(made).read(TRUTH_VIDEOS, batch="b").to_pylist()}
    by_path = collections.defaultdict(list)
    for shot in Store(made).read(TRUTH_SHOTS, batch="b").to_pylist():
        by_path[shot["path"]].append(shot)
    for path, shots in by_path.items():
        shots.sort(key=lambda s: s["shot_index"])
        assert shots[0]["start_frame"] == 0
        assert shots[-1]["end_frame"] == frames[path]
        for before, after in itertools.pairwise(shots):
            assert after["transition_start_frame"] == before["end_frame"]
            assert (after["start_frame"] == before["end_frame"]) == (after["cut_in"] == "hard")


def test_a_copy_has_the_bytes_of_its_source_and_a_corrupt_file_breaks_while_decoding(made: Path) -> None:
    seen = set()
    for row in Store(made).read(TRUTH_VIDEOS, batch="b").to_pylist():
        path = made / "files" / row["path"]
        seen.add(row["defect"])
        if row["defect"] == "duplicate":
            assert path.read_bytes() == (made / "files" / row["duplicate_of"]).read_bytes()
        if row["defect"] == "corrupt":
            count, broke = _decode(path)
            assert broke
            assert 0 < count < row["num_frames"]
    assert seen == {"none", *FILE_DEFECTS}


def _decode(path: Path) -> tuple[int, bool]:
    count = 0
    try:
        with av.open(str(path)) as container:
            for _ in container.decode(video=0):
                count += 1
    except av.error.InvalidDataError:
        return count, True
    return count, False


def test_a_sidecar_carries_text_and_licence_and_the_marker_is_there(made: Path) -> None:
    assert (made / "files" / "_SUCCESS").exists()
    note = json.loads((made / "files" / "v000000.json").read_text())
    assert note["licence"] == "CC0-1.0"
    assert note["text"].endswith(".")


def test_another_run_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    _make(tmp_path)
    assert _bytes(tmp_path) == _bytes(made)


def test_a_rerun_computes_nothing_and_lost_files_come_back_the_same(made: Path) -> None:
    before = _bytes(made)
    assert not _make(made).computed
    stamp = (made / "files" / "v000001.mkv").stat().st_mtime_ns
    (made / "files" / "_SUCCESS").unlink()
    (made / "files" / "v000003.webm").unlink()
    (made / "files" / ".v000003.webm.1.part").write_bytes(b"half")
    assert _make(made).computed
    assert _bytes(made) == before
    assert (made / "files" / "v000001.mkv").stat().st_mtime_ns == stamp  # what was whole was kept


def test_a_killed_run_goes_on_and_ends_the_same(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_so_far = []
    real = footage.render_video

    def dies(plan: footage.VideoPlan) -> object:
        if len(made_so_far) == 3:
            raise KeyboardInterrupt  # not an Exception: nothing catches it, as with a kill
        made_so_far.append(plan.path)
        return real(plan)

    monkeypatch.setattr(footage, "render_video", dies)
    with pytest.raises(KeyboardInterrupt):
        _make(tmp_path)
    assert not (tmp_path / "files" / "_SUCCESS").exists()
    made_so_far.clear()
    monkeypatch.setattr(footage, "render_video", lambda plan: made_so_far.append(plan.path) or real(plan))
    _make(tmp_path)
    assert len(made_so_far) == TINY.total - 3
    assert _bytes(tmp_path) == _bytes(made)
    assert Store(tmp_path).read(TRUTH_SHOTS, batch="b").equals(Store(made).read(TRUTH_SHOTS, batch="b"))


def test_files_of_an_earlier_config_go_and_files_of_others_stay(made: Path, tmp_path: Path) -> None:
    one = dataclasses.replace(TINY, num_videos=2)
    _make(tmp_path, one)
    (tmp_path / "files" / "vacation.mp4").write_bytes(b"mine")
    (tmp_path / "files" / "vacation.json").write_text("{}")
    (tmp_path / "files" / "v000000.webm").write_bytes(b"of a config that chose another container")
    _make(tmp_path, dataclasses.replace(one, num_videos=1))
    assert sorted(_bytes(tmp_path)) == ["_SUCCESS", "v000000.json", "v000000.mp4", "vacation.json", "vacation.mp4"]


def test_footage_of_yours_is_never_written_to(tmp_path: Path) -> None:
    store = Store(tmp_path / "root").create()
    (tmp_path / "mine").mkdir()
    batches.register(store, batches.Batch(name="b", folder=str(tmp_path / "mine"), kind=batches.FOOTAGE))
    whole = types.SimpleNamespace(synthetic=types.SimpleNamespace(world=WorldConfig(), footage=TINY))
    assert run_stage(footage.FOOTAGE, store, whole, batch="b").rows == {"truth_shots": 0, "truth_videos": 0}
    assert list((tmp_path / "mine").iterdir()) == []


def test_the_default_plan_has_enough_of_everything() -> None:
    config = FootageConfig()
    plans = [plan_video(config, WorldConfig(), "demo", i) for i in range(config.total)]
    defects = collections.Counter(s.defect for p in plans for s in p.shots)
    assert min(defects[d] for d in SHOT_DEFECTS) >= 6
    assert len(plans) >= 44
    assert sum(len(p.shots) for p in plans) >= 220
    assert sum(p.copy is not None for p in plans) >= 3
    assert sum(p.defect == "corrupt" for p in plans) >= 2
    assert all(s.scene.camera != "static" or any(m != "still" for a in s.scene.actors for m in a.motions)
               for p in plans for s in p.shots if s.defect != "static")  # fmt: skip


def test_a_near_duplicate_repeats_a_sound_shot_of_another_file() -> None:
    config = FootageConfig()
    plans = {p.path: p for p in (plan_video(config, WorldConfig(), "demo", i) for i in range(config.total))}
    pairs = [(p, s) for p in plans.values() for s in p.shots if s.defect == "near_duplicate"]
    assert pairs
    for plan, shot in pairs:
        assert shot.duplicate_of is not None
        path, index = shot.duplicate_of.split("#")
        assert plans[path].shots[int(index)].scene == shot.scene
        assert plans[path].shots[int(index)].defect == plans[path].defect == "none"
        assert plans[path].aspect == plan.aspect
        assert plans[path].width > plan.width


@pytest.mark.parametrize("bad", [{"num_videos": 0}, {"min_shots": 9}, {"gradual": 1.5}, {"short_side_px": 20}])
def test_a_config_out_of_range_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        FootageConfig(**bad)


@pytest.mark.ray
def test_ray_gives_the_same_bytes_and_truth(made: Path, tmp_path: Path) -> None:
    store = Store(tmp_path).create()
    batches.register(store, batches.Batch(name="b", folder=str(tmp_path / "files"), kind=batches.SYNTHETIC))
    whole = types.SimpleNamespace(synthetic=types.SimpleNamespace(world=WorldConfig(), footage=TINY))
    run_stage(footage.FOOTAGE, store, whole, batch="b", executor=executor("ray", 2))
    assert _bytes(tmp_path) == _bytes(made)
    assert store.read(TRUTH_SHOTS, batch="b").equals(Store(made).read(TRUTH_SHOTS, batch="b"))
