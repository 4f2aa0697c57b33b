"""The one pass: every frame once, with its exact time and its damage."""

from fractions import Fraction
from pathlib import Path

import pytest

from pipelines.video.decode import Frame, Pass, decode_frames
from pipelines.video.frames import read_jpeg
from pipelines.video.probe import ProbeConfig
from tests.videos import decode_all, make_video, numbered, read_number, shot


def run(path: Path, **options: object) -> tuple[list[tuple[int, int, bool]], Pass]:
    outcome = Pass()
    frames = decode_frames(str(path.parent), path.name, ProbeConfig(), 60.0, outcome, **options)  # type: ignore[arg-type]
    return [(f.index, f.pts, f.is_damaged) for f in frames], outcome


def test_every_frame_comes_once_and_in_order(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", [numbered(i) for i in range(40)], options={"bf": "2"})
    outcome, seen = Pass(), []
    for frame in decode_frames(str(tmp_path), path.name, ProbeConfig(), 60.0, outcome):
        assert isinstance(frame, Frame)
        seen.append(read_number(frame.picture.to_ndarray(format="rgb24")))
    assert seen == list(range(40))
    assert (outcome.num_frames, outcome.passes, outcome.damaged, outcome.stopped) == (40, 1, [], "")


def test_times_of_a_variable_frame_rate_are_exact(tmp_path: Path) -> None:
    times = [0, 40, 50, 170, 171, 400, 440, 1000]
    path = make_video(tmp_path / "v.mkv", [numbered(i) for i in range(8)], times=times, time_base=Fraction(1, 1000))
    frames, outcome = run(path)
    assert [pts * outcome.time_base for _, pts, _ in frames] == [Fraction(t, 1000) for t in times]
    assert [t for t, _ in decode_all(path)] == [Fraction(t, 1000) for t in times]


def test_damage_runs_from_the_bad_packet_to_the_next_key_frame(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mkv", shot(3, 60), options={"x264-params": "keyint=12:min-keyint=12:scenecut=0"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes((i * 37 + 11) % 256 for i in range(400))
    path.write_bytes(data)
    frames, outcome = run(path)
    damaged = [pts for _, pts, bad in frames if bad]
    intact = [pts for _, pts, bad in frames if not bad]
    assert outcome.damaged
    assert outcome.reason
    assert len(intact) >= 24
    assert not damaged or max(damaged) - min(damaged) < 36 * 40  # two groups of pictures at most


def test_a_deadline_ends_the_pass_and_says_so(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", shot(1, 20))
    outcome = Pass()
    assert list(decode_frames(str(tmp_path), path.name, ProbeConfig(), -1.0, outcome)) == []
    assert outcome.stopped == "deadline"


def test_a_seek_starts_at_or_before_the_asked_frame(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", shot(1, 60))
    whole, _ = run(path)
    wanted = whole[41][1]
    some, outcome = run(path, from_pts=wanted)
    assert some[0][1] <= wanted
    assert wanted in [pts for _, pts, _ in some]
    assert outcome.passes == 0  # a partial decode is not a full one


def test_a_file_that_is_no_video_ends_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"nothing")
    frames, outcome = run(tmp_path / "x.mp4")
    assert frames == []
    assert outcome.stopped


def test_a_broken_jpeg_is_an_error() -> None:
    with pytest.raises(OSError, match="cannot identify"):
        read_jpeg(b"nothing")


def test_what_is_heard_of_a_file_does_not_depend_on_the_file_before(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mkv", shot(3, 60), options={"x264-params": "keyint=12:min-keyint=12:scenecut=0"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes((i * 37 + 11) % 256 for i in range(400))
    path.write_bytes(data)
    first, second = run(path), run(path)
    assert first[0] == second[0]
    assert first[1].damaged == second[1].damaged != []
