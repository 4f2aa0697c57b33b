"""A file is judged by its bytes: what it is, how it is shown, and by which name."""

import shutil
from fractions import Fraction
from pathlib import Path

import av
import pytest

from pipelines.ingest import mark_duplicates
from pipelines.video.probe import ProbeConfig, clean_sar, display_size, probe, quarter_turn
from pipelines.video.source import list_files, videos_and_sidecars
from schemas.errors import FootageError
from schemas.videos import Video, VideoStatus
from tests.videos import RED, flat, make_video, numbered, shot


def look(path: Path) -> Video:
    return probe(str(path.parent), path.name, path.stat().st_size, ProbeConfig())


def test_a_plain_video_is_described_exactly(tmp_path: Path) -> None:
    row = look(make_video(tmp_path / "a.mp4", shot(1, 30), fps=Fraction(30000, 1001)))
    assert (row.status, row.width, row.height, row.num_packets) == (VideoStatus.OK, 160, 96, 30)
    assert row.fps == pytest.approx(30000 / 1001, rel=1e-5)
    assert row.duration_s == pytest.approx(30 * 1001 / 30000, abs=1e-5)
    assert not row.has_audio
    assert not row.is_image


def test_the_id_survives_a_rename_and_a_remux(tmp_path: Path) -> None:
    first = make_video(tmp_path / "a.mp4", shot(1, 20))
    renamed = Path(shutil.copy(first, tmp_path / "z.bin"))
    remuxed = tmp_path / "b.mkv"
    with av.open(str(first)) as source, av.open(str(remuxed), "w") as target:
        target.metadata["title"] = "another"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    ids = {look(p).video_id for p in (first, renamed, remuxed)}
    assert len(ids) == 1
    assert look(make_video(tmp_path / "c.mkv", shot(2, 20))).video_id not in ids


def test_rotation_and_pixel_shape_give_the_size_as_shown(tmp_path: Path) -> None:
    turned = look(make_video(tmp_path / "t.mp4", [flat(RED)] * 3, rotation=-90))
    assert (turned.rotation, turned.width, turned.height) == (90, 48, 64)
    wide = look(make_video(tmp_path / "w.mkv", [flat(RED)] * 3, sar=Fraction(3, 2)))
    assert (wide.width, wide.height) == (96, 48)


def test_display_size_never_shrinks_a_side() -> None:
    assert display_size(100, 50, Fraction(1, 2), 0) == (100, 100)
    assert display_size(100, 50, Fraction(2), 90) == (50, 200)


@pytest.mark.parametrize(("turn", "clockwise"), [(-90, 90), (90, 270), (180, 180), (45, 0), (-2147483648, 0)])
def test_only_quarter_turns_count(turn: int, clockwise: int) -> None:
    assert quarter_turn(turn) == clockwise


@pytest.mark.parametrize("sar", [None, Fraction(0), Fraction(853, 854), Fraction(1, 50)])
def test_absent_absurd_and_nearly_square_pixels_are_square(sar: Fraction | None) -> None:
    assert clean_sar(sar) == 1


@pytest.mark.parametrize(
    "data", [b"", b"hello\n" * 8, b"\x00\x00\x00\x20ftypisom" + b"\x00" * 20, bytes(range(256)) * 40]
)
def test_rubbish_is_a_row_with_a_reason(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(data)
    row = look(path)
    assert row.status == VideoStatus.UNREADABLE
    assert row.reason
    assert str(tmp_path) not in row.reason  # equal files give equal rows in any folder


def test_every_truncation_of_a_video_is_a_row(tmp_path: Path) -> None:
    data = make_video(tmp_path / "whole.mkv", shot(1, 12)).read_bytes()
    for share in (0.01, 0.1, 0.3, 0.6, 0.9):
        path = tmp_path / f"cut{share}.mkv"
        path.write_bytes(data[: int(len(data) * share)])
        assert look(path).status in set(VideoStatus)


def test_a_text_that_libav_would_draw_is_not_footage(tmp_path: Path) -> None:
    path = tmp_path / "notes.nfo"
    path.write_text("a text file\n" * 20)
    assert look(path).status == VideoStatus.UNREADABLE


def test_a_playlist_reaches_no_other_file(tmp_path: Path) -> None:
    make_video(tmp_path / "secret.ts", [flat(RED)] * 3)
    path = tmp_path / "list.mp4"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n")
    assert look(path).status == VideoStatus.UNREADABLE


def test_a_still_image_says_so(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(numbered(3)).save(tmp_path / "p.png")
    row = look(tmp_path / "p.png")
    assert (row.status, row.is_image, row.reason) == (VideoStatus.OK, True, "still image")


def test_audio_with_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame(format="s16", layout="mono", samples=800)
        frame.sample_rate = 8000
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        container.mux(stream.encode(frame))
    row = look(path)
    assert (row.status, row.has_audio) == (VideoStatus.NO_VIDEO, True)


def test_a_picture_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", [flat(RED)] * 3)
    row = probe(str(tmp_path), path.name, 1, ProbeConfig(max_pixels=64 * 48 - 1))
    assert row.status == VideoStatus.UNREADABLE
    assert "64x48" in row.reason


def test_a_deadline_ends_the_reading(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", shot(1, 20))
    row = probe(str(tmp_path), path.name, 1, ProbeConfig(deadline_s=1e-9))
    assert row.status == VideoStatus.UNREADABLE


def test_of_equal_files_the_first_path_stays(tmp_path: Path) -> None:
    make_video(tmp_path / "b.mp4", shot(1, 5))
    shutil.copy(tmp_path / "b.mp4", tmp_path / "a.mp4")
    shutil.copy(tmp_path / "b.mp4", tmp_path / "c.mp4")
    rows = mark_duplicates([look(tmp_path / n) for n in ("a.mp4", "b.mp4", "c.mp4")])
    assert [r.duplicate_of for r in rows] == [None, "a.mp4", "a.mp4"]


def test_hidden_files_markers_and_sidecars_are_no_footage(tmp_path: Path) -> None:
    for name in ("a.mp4", ".hidden.mp4", "_SUCCESS", "a.json", "a.txt", "t.csv", "sub/b.xyz", ".cache/c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    files, sidecars = videos_and_sidecars(list_files(str(tmp_path)))
    assert [f.path for f in files] == ["a.mp4", "sub/b.xyz"]
    assert sorted(sidecars) == ["a.json", "a.txt", "t.csv"]


def test_a_missing_folder_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(FootageError, match="does not exist"):
        list_files(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["with space.mp4", "a:b.mp4", "f%03d.mp4", "te[s]t ' _.mp4", "zu\u00df.mp4"])
def test_odd_names_are_only_names(tmp_path: Path, name: str) -> None:
    make_video(tmp_path / "plain.mp4", [flat(RED)] * 2).rename(tmp_path / name)
    assert look(tmp_path / name).status == VideoStatus.OK
