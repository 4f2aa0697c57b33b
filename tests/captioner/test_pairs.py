"""Pairs from files, people and teachers: what is wrong with a row is said, what is right is seen as in captioning."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from captioner.config import CaptionerConfig
from captioner.frames import FrameSpec, pixels
from captioner.jobs import job_of
from captioner.pairs.config import PairSources
from captioner.pairs.listing import read_list, take_file, take_rows
from captioner.pairs.read import read_rows, split_of
from captioner.pairs.stage import PAIRS_STAGE
from captioner.pairs.teacher import TEACHER_CAPTIONS, listed, teacher_stage
from captioner.stages import pair_of
from captioner.train.data import shown_frames
from orchestration import cli
from pipelines.execute import Local, run_stage
from schemas.captions import PAIRS, PAIRS_LEFT_OUT, SYNTHETIC_PAIRS
from schemas.errors import ConfigError, UsageError
from schemas.labels import WRITTEN
from schemas.language import parse
from schemas.store import Store
from tests.captioner import worlds
from tests.videos import make_video, marked, read_number

SHORT, DENSE = "A red square is moving left.", "A large red square is moving left. The background is sand."


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        pa.csv.write_csv(pa.Table.from_pylist(rows), path)
    return str(path)


def gathered(store: Store, *lists: str, synthetic: bool = False) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    config = CaptionerConfig(pairs=PairSources(lists=lists, synthetic=synthetic))
    run_stage(PAIRS_STAGE, store, config, executor=Local(1))
    return store.read(PAIRS).to_pylist(), store.read(PAIRS_LEFT_OUT).to_pylist()


@pytest.fixture
def root(tmp_path: Path) -> Store:
    return worlds.footage(tmp_path / "root")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Two seconds at 25 frames a second, every frame numbered."""
    return make_video(tmp_path / "films" / "a.mp4", [marked(i) for i in range(50)])


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_each_format_gives_the_same_pairs(root: Store, tmp_path: Path, suffix: str) -> None:
    rows = [{"clip_id": f"c{i}", "short": SHORT, "dense": DENSE, "extra": "x"} for i in range(3)]
    name, _ = take_file(root, write(tmp_path / f"pairs{suffix}", rows))
    made, left_out = gathered(root, name)
    assert [p["clip_id"] for p in sorted(made, key=lambda p: p["clip_id"])] == ["c0", "c1", "c2"]
    assert {p["source"] for p in made} == {f"file:pairs{suffix}"}
    assert not left_out
    assert all(pair_of(p).fields == parse(DENSE) for p in made)
    assert {p["split"] for p in made} == {split_of("v")}, "clips of one video stand on one side"


def test_a_clip_of_the_root_is_seen_as_in_captioning(root: Store, tmp_path: Path) -> None:
    name, _ = take_file(root, write(tmp_path / "p.jsonl", [{"clip_id": "c1", "short": SHORT, "dense": DENSE}]))
    made, _ = gathered(root, name)
    spec = FrameSpec(num_frames=4, area=24 * 24)
    frames, times = shown_frames(pair_of(made[0]), spec)
    clip = worlds.clip("c1", start=20, end=40)
    names = ("frame_index", "time_s", "width", "height", "jpeg")
    proxies = [{f: getattr(worlds.proxy(i), f) for f in names} for i in range(0, 140, 2)]
    job = job_of({f: getattr(clip, f) for f in clip.__slots__}, proxies, (640, 480), spec)
    assert np.array_equal(frames, pixels(job.jpegs, spec, job.box))
    assert times == job.times_s


def test_a_span_of_a_file_is_decoded_through_the_video_layer(root: Store, video: Path, tmp_path: Path) -> None:
    rows = [
        {"video": "films/a.mp4", "start": 0.4, "end": 1.2, "short": SHORT, "dense": DENSE},
        {"video": str(video), "short": SHORT, "dense": DENSE},
    ]
    name, _ = take_file(root, write(tmp_path / "p.parquet", rows))
    made, _ = gathered(root, name)
    part, whole = sorted(made, key=lambda p: p["length_s"])
    assert part["length_s"] == pytest.approx(0.8)
    assert whole["length_s"] == pytest.approx(2.0)
    spec = FrameSpec(num_frames=4, area=0, multiple=1)
    seen, times = shown_frames(pair_of(part), spec)
    numbers = [read_number(f) for f in seen]
    assert numbers == [10 + round(t * 25) for t in times], "times are from the clip's start, at 0.4 s"
    assert all(10 <= n < 30 for n in numbers)
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    ("change", "column", "says"),
    [
        ({"short": "  "}, "short", "empty"),
        ({"dense": None}, "dense", "empty"),
        ({"dense": 3}, "dense", "a text is wanted"),
        ({"video": "films/none.mp4"}, "video", "no file"),
        ({"video": "torn.mp4"}, "video", "unreadable"),
        ({"video": ""}, "video", "neither"),
        ({"video": "", "clip_id": "c99"}, "clip_id", "no clip `c99`"),
        ({"video": "", "clip_id": "blind"}, "clip_id", "no proxy"),
        ({"start": "soon"}, "start", "seconds are wanted"),
        ({"start": -1}, "start", "from 0 on"),
        ({"start": 1.0, "end": 0.5}, "end", "ends at 0.5 s"),
        ({"start": 7.0, "end": 8.0}, "start", "no intact frame"),
        ({"split": "test"}, "split", "train or held_out"),
        ({"fields": "{"}, "fields", "no record"),
        ({"fields": {"colour": "red"}}, "fields", "unknown field `colour`"),
        ({}, "video", "repeats row 1"),
    ],
)
def test_a_bad_row_is_left_out_with_column_and_reason(
    root: Store, video: Path, tmp_path: Path, change: dict[str, Any], column: str, says: str
) -> None:
    (tmp_path / "torn.mp4").write_bytes(video.read_bytes()[:200])
    good = {"video": "films/a.mp4", "short": SHORT, "dense": DENSE}
    name, _ = take_file(root, write(tmp_path / "p.jsonl", [good, {**good, **change}]))
    made, left_out = gathered(root, name)
    assert len(made) == 1
    assert [(r["row"], r["column_name"]) for r in left_out] == [(2, column)]
    assert says in left_out[0]["reason"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.txt", "x", "ends in none of"),
        ("p.csv", "video,short\na.mp4,x\n", "no column `dense`"),
        ("p.csv", "short,dense\nx,y\n", "`video` or `clip_id`"),
        ("p.jsonl", '{"short": "x"\n', "line 1 is no JSON"),
        ("p.jsonl", "", "no rows"),
        ("p.parquet", "no parquet", "does not read"),
        ("p.csv", "video,short,dense\nnone.mp4,x,y\n", "none of the 1 rows"),
    ],
)
def test_a_file_that_gives_nothing_is_refused(root: Store, tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=says) as error:
        take_file(root, str(tmp_path / name))
    assert error.value.exit_code == 2
    with pytest.raises(UsageError, match="does not open"):
        read_rows(str(tmp_path / "none.csv"))


def test_rendered_pairs_stand_beside_those_of_files(root: Store, tmp_path: Path) -> None:
    root.commit(SYNTHETIC_PAIRS, SYNTHETIC_PAIRS.from_rows(worlds.pairs()))
    row = {
        "clip_id": "c0",
        "short": SHORT,
        "dense": "Free words that no grammar knows!",
        "source": "web",
        "writer": "Ann",
    }
    name, _ = take_file(root, write(tmp_path / "p.jsonl", [row]))
    made, _ = gathered(root, name, synthetic=True)
    assert {p["source"] for p in made} == {"synthetic", "web"}
    (given,) = (p for p in made if p["source"] == "web")
    assert given["fields"] is None
    assert given["writer"] == "Ann"


def test_a_teacher_is_learnt_from_where_it_is_ok(root: Store) -> None:
    run_stage(teacher_stage("fake"), root, CaptionerConfig(), batch="b", executor=Local(1))
    captions = root.read(TEACHER_CAPTIONS, batch="b").to_pylist()
    name, _ = take_rows(root, listed(captions), "teacher fake")
    made, left_out = gathered(root, name)
    assert {p["clip_id"] for p in made} == {c["clip_id"] for c in captions if c["status"] == "ok"}
    assert {r["reason"].split()[4] for r in left_out} == {c["clip_id"] for c in captions if c["status"] != "ok"}
    assert left_out, "one clip has no frames and one a damaged one"
    assert {p["source"] for p in made} == {"teacher:fake"}
    assert all(captions[0]["made_by"] in p["writer"] for p in made)
    with pytest.raises(ConfigError, match="did you mean `fake`"):
        teacher_stage("fakes")


def dailies(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(words)
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_trains_on_files_and_on_what_people_wrote(
    root: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"clip_id": f"c{i}", "short": SHORT, "dense": DENSE, "split": "train"} for i in range(5)]
    rows += [
        {"clip_id": "c5", "short": SHORT, "dense": DENSE, "split": "held_out"},
        {"clip_id": "c99", **rows[0], "short": ""},
    ]
    file = write(tmp_path / "p.csv", rows)
    common = ("--root", root.root, "--recipe", "tiny")
    code, out, err = dailies(capsys, "captioner", "train", "--pairs", file, *common, "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["pair_files"] == {"rows": 7, "left_out_when_read": 1}
    assert "row 7, column `short`: the text is empty" in err
    assert [s["stage"] for s in answer["stages"]] == ["pairs", "captioner_model"]
    assert answer["stages"][1]["metrics"]["knows"] == "footage"
    code, out, _ = dailies(capsys, "captioner", "train", "--root", root.root, "--json")
    assert not any(s["computed"] for s in json.loads(out)["stages"]), "the root remembers what it learns from"
    code, _, err = dailies(capsys, "captioner", "train", "--labels", *common)
    assert code == 2
    assert "nobody wrote a caption" in err
    lines = [{"clip_id": "c1", "short": SHORT, "dense": d, "writer": "Ann", "split": "train"} for d in ("Old.", DENSE)]
    root.write_bytes("".join(json.dumps(r) + "\n" for r in lines).encode(), *WRITTEN)
    code, out, err = dailies(capsys, "captioner", "train", "--labels", *common, "--set", "captioner.train.steps=2")
    assert code == 0, err
    assert [(p["source"], p["dense"]) for p in root.read(PAIRS).to_pylist()] == [("labels", DENSE)]


def test_a_forgotten_video_is_in_no_pair_no_list_and_no_teachers_caption(
    root: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stage(teacher_stage("fake"), root, CaptionerConfig(), batch="b", executor=Local(1))
    name, _ = take_rows(root, listed(root.read(TEACHER_CAPTIONS, batch="b").to_pylist()), "teacher fake")
    assert gathered(root, name)[0]
    code, _, err = dailies(capsys, "forget", "v.mp4", "--yes", "--root", root.root)
    assert code == 0, err
    assert root.read(TEACHER_CAPTIONS, batch="b").num_rows == 0
    assert root.read(PAIRS).num_rows == 0
    with pytest.raises(UsageError, match="file again"):
        read_list(root, name)
