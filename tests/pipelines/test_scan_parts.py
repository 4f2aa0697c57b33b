"""A long video in parts gives the rows of one pass, bit for bit, or is decoded in one go and says so."""

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.execute import executor, run_stage
from pipelines.recipes import footage
from pipelines.scan.parts import SCAN_PARTS, CannotJoin, join, plan, scan_part
from pipelines.scan.scan import OUTPUTS, ScanConfig, scan
from pipelines.stages import STAGES
from pipelines.video.decode import Pass, decode_frames
from pipelines.video.decode_part import Part, PartPass, decode_part
from pipelines.video.probe import ProbeConfig, probe
from schemas import batches
from schemas.store import Store
from schemas.videos import FRAMES, SCANS, SIGNALS, Video
from tests.videos import make_video, shot

SHAPES = {
    "plain": {"bf": "0"},
    "b_frames": {"bf": "3", "b-pyramid": "normal"},
    "open_gop": {"x264-params": "open-gop=1:bframes=3:b-pyramid=normal:keyint=20:min-keyint=20:scenecut=0"},
}


def film() -> list[np.ndarray]:
    """Shots of many lengths, a flash on a seam, and a still that is longer than a part."""
    frames = [f for i, n in enumerate((30, 47, 8, 3, 90, 61)) for f in shot(i, n)] + [shot(9, 1)[0]] * 110
    frames[120] = np.full_like(frames[120], 240)
    return frames


@cache
def made(folder: Path, shape: str) -> Video:
    suffix = ".ts" if shape == "plain" else ".mp4"
    path = make_video(folder / f"{shape}{suffix}", film(), 25, options=SHAPES[shape], gop=20)
    return probe(str(folder), path.name, 1, ProbeConfig())


@cache
def whole(video: Video) -> dict[str, pa.Table]:
    return scan(video, ScanConfig())


def in_parts(video: Video, config: ScanConfig) -> dict[str, pa.Table]:
    found = [scan_part(video, p, config) for p in plan(video, config) if p is not None]
    joined = {t.name: pa.concat_tables([f[t.name] for f in found]) for t in (SCAN_PARTS, FRAMES)}
    return join(video, joined["scan_parts"], joined["frames"], config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("films")


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(sorted(SHAPES)), st.floats(0.4, 7.5))
def test_parts_of_any_length_give_the_rows_of_one_pass(folder: Path, shape: str, part_s: float) -> None:
    video = made(folder, shape)
    config = ScanConfig(part_s=part_s)
    assert len(plan(video, config)) >= 2
    parts = in_parts(video, config)
    for table in OUTPUTS:
        assert parts[table.name].equals(whole(video)[table.name]), table.name


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_every_frame_is_in_exactly_one_part(folder: Path, shape: str) -> None:
    video = made(folder, shape)
    want = [f.pts for f in decode_frames(video.folder, video.path, ProbeConfig(), 60.0, Pass())]
    found: list[int] = []
    for index in range(5):
        outcome = PartPass()
        part = Part(index=index, count=5, length_s=3.1)
        some = [f.pts for f in decode_part(video.folder, video.path, ProbeConfig(), 60.0, part, outcome)]
        assert outcome.unfit == ""
        found += [p for p in some if outcome.seam_pts is None or p < outcome.seam_pts]
    assert found == want


def test_a_short_video_a_picture_and_a_damaged_file_are_one_item(folder: Path) -> None:
    video = made(folder, "plain")
    assert plan(video, ScanConfig()) == [None]
    long = dataclasses.replace(video, duration_s=7200.0, num_packets=180_000)
    assert len(plan(long, ScanConfig())) == 40
    assert plan(dataclasses.replace(long, status="damaged"), ScanConfig()) == [None]
    assert plan(dataclasses.replace(long, is_image=True), ScanConfig()) == [None]
    assert plan(dataclasses.replace(long, duration_s=1e9), ScanConfig()) == [None]  # a damaged time stamp


def test_other_pictures_at_a_seam_are_noticed(folder: Path) -> None:
    video, config = made(folder, "b_frames"), ScanConfig(part_s=4.0)
    rows = [scan_part(video, p, config) for p in plan(video, config) if p is not None]
    frames = pa.concat_tables([r["frames"] for r in rows])
    parts = [r["scan_parts"].to_pylist()[0] for r in rows]

    def joined(changed: list[dict[str, object]]) -> None:
        join(video, SCAN_PARTS.from_rows(changed), frames, config)

    joined(parts)
    with pytest.raises(CannotJoin, match="saw other pictures"):
        joined([parts[0], {**parts[1], "luma": [0.5, *parts[1]["luma"][1:]]}, *parts[2:]])
    with pytest.raises(CannotJoin, match="do not meet"):
        joined([parts[0], {**parts[1], "start_pts": parts[1]["start_pts"] + 1}, *parts[2:]])
    with pytest.raises(CannotJoin, match="a part is missing"):
        joined([parts[0], *parts[2:]])
    with pytest.raises(CannotJoin, match="part 1: deadline"):
        joined([parts[0], {**parts[1], "unfit": "deadline"}, *parts[2:]])


def curated(tmp_path: Path, name: str, config: ScanConfig, workers: int = 1) -> Store:
    store = Store(str(tmp_path / name)).create()
    batches.register(store, batches.Batch(name="b", folder=str(tmp_path / "in"), kind=batches.FOOTAGE))
    settings = dataclasses.replace(footage(), scan=config)
    for stage in STAGES:
        if stage.name in ("videos", "scan"):
            run_stage(stage, store, settings, batch="b", executor=executor("local", workers))
    return store


def contents(store: Store) -> dict[str, str]:
    found = {t.name: store.committed(t, "b") for t in (SCANS, SIGNALS, FRAMES)}
    return {name: commit.content for name, commit in found.items() if commit}


def test_the_stage_gives_equal_tables_and_names_a_second_pass(tmp_path: Path) -> None:
    options = {"x264-params": "keyint=12:min-keyint=12:scenecut=0"}
    make_video(tmp_path / "in" / "a.mp4", film(), options=options)
    short = make_video(tmp_path / "in" / "b.mp4", shot(3, 30))
    assert short.exists()
    one, many = curated(tmp_path, "one", ScanConfig()), curated(tmp_path, "many", ScanConfig(part_s=3.0), workers=2)
    assert contents(one) == contents(many)
    assert len(list(Path(many.path).glob("work/scan/*.scan_parts.parquet"))) > 4
    metrics = many.committed(SCANS, "b").metrics  # type: ignore[union-attr]
    assert metrics["decode_passes_per_source"] == 1


def test_a_file_damaged_on_the_way_is_decoded_in_one_go(tmp_path: Path) -> None:
    path = make_video(tmp_path / "in" / "a.mkv", film(), options={"x264-params": "keyint=12:min-keyint=12:scenecut=0"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = bytes((i * 37 + 11) % 256 for i in range(300))
    path.write_bytes(data)
    one, many = curated(tmp_path, "one", ScanConfig()), curated(tmp_path, "many", ScanConfig(part_s=3.0))
    rows = {s: store.read(SCANS, batch="b").to_pylist()[0] for s, store in (("one", one), ("many", many))}
    assert rows["one"]["damaged"] != []
    assert rows["many"] == rows["one"] | {"decode_passes": rows["many"]["decode_passes"]}
    assert contents(one)["signals"] == contents(many)["signals"]
    assert contents(one)["frames"] == contents(many)["frames"]
