"""A damaged file keeps its intact spans, its damaged ranges are written down, and nothing wrong passes for right."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipelines.scan.scan import ScanConfig, scan
from pipelines.video.decode import Pass, decode_frames
from pipelines.video.probe import ProbeConfig, probe
from pipelines.video.source import list_files
from tests.scanned import scan_and_cut
from tests.videos import RED, flat, make_video, marked, remux, shot

FRAMES = 60
GROUPS = "keyint=12:min-keyint=12:scenecut=0"  # five groups of pictures


def decoded(path: Path) -> tuple[dict[Fraction, tuple[bool, np.ndarray]], Pass]:
    """Frames by time: whether they are marked as damaged, and their luma."""
    outcome, found = Pass(), {}
    for frame in decode_frames(str(path.parent), path.name, ProbeConfig(), 60.0, outcome):
        picture = frame.picture.to_ndarray(format="gray").astype(np.int16)
        found[frame.pts * outcome.time_base] = (frame.is_damaged, picture)
    return found, outcome


def harm(data: bytes, kind: str) -> bytes:
    """The middle of a file lost, overwritten with zeros, or its end lost."""
    middle = len(data) // 2
    if kind == "cut_short":
        return data[:middle]
    if kind == "overwritten":
        return data[:middle] + bytes(2000) + data[middle + 2000 :]
    return data[:middle] + data[middle + 1500 :]


@pytest.mark.parametrize("b_frames", ["0", "3"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("kind", ["cut_short", "overwritten", "gap"])
def test_what_is_not_marked_is_as_it_was(tmp_path: Path, kind: str, suffix: str, b_frames: str) -> None:
    options = {"movflags": "faststart"} if suffix == ".mp4" else {}
    whole = make_video(
        tmp_path / f"whole{suffix}",
        shot(3, FRAMES),
        options={"bf": b_frames, "x264-params": GROUPS},
        container_options=options,
    )
    truth, _ = decoded(whole)
    path = tmp_path / f"harmed{suffix}"
    path.write_bytes(harm(whole.read_bytes(), kind))
    found, outcome = decoded(path)
    wrong = [
        float(time)
        for time, (is_damaged, picture) in found.items()
        if not is_damaged and (time not in truth or np.abs(picture - truth[time][1]).mean() > 0.5)
    ]
    assert wrong == []
    intact = sum(not is_damaged for is_damaged, _ in found.values())
    assert intact >= 20
    if kind == "cut_short" and suffix == ".ts":  # nothing in a transport stream says how long it was
        return
    assert outcome.damaged
    out = scan_and_cut(path)
    (row,) = out["scans"].to_pylist()
    assert (row["status"], bool(row["reason"]), bool(row["damaged"])) == ("damaged", True, True)
    assert sum(s["end_frame"] - s["start_frame"] for s in out["shots"].to_pylist()) <= intact
    assert out["shots"].num_rows >= 1


def test_without_its_index_an_mp4_is_unreadable_and_says_why(tmp_path: Path) -> None:
    data = make_video(tmp_path / "whole.mp4", shot(1, 20)).read_bytes()
    path = tmp_path / "a.mp4"
    path.write_bytes(data[: data.index(b"moov") - 4])
    video = probe(str(tmp_path), path.name, path.stat().st_size, ProbeConfig())
    assert (video.status, "moov atom not found" in video.reason) == ("unreadable", True)
    (row,) = scan(video, ScanConfig())["scans"].to_pylist()
    assert (row["status"], row["reason"]) == (video.status, video.reason)


def _two_streams(path: Path) -> Path:
    """A small stream first and a larger one after it, in one file."""
    import av

    with av.open(str(path), "w") as container:
        streams = []
        for width, height in ((96, 64), (160, 96)):
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        for index in range(12):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(marked(index, stream.width, stream.height), format="rgb24")
                frame.pts = index
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    return path


def test_of_several_streams_the_first_is_taken_and_the_row_says_so(tmp_path: Path) -> None:
    video = probe(str(tmp_path), _two_streams(tmp_path / "a.mp4").name, 0, ProbeConfig())
    assert (video.stream_index, video.stream_reason) == (0, "the first of 2 video streams")
    out = scan(video, ScanConfig())
    assert (video.width, video.height, out["scans"]["num_frames"][0].as_py()) == (96, 64, 12)


def test_a_stream_without_a_decoder_gives_way_to_one_with(tmp_path: Path) -> None:
    path = _two_streams(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1\x00", b"zzz1\x00", 1))
    video = probe(str(tmp_path), path.name, 0, ProbeConfig())
    assert (video.stream_index, video.stream_reason) == (1, "the first of 2 video streams that has a decoder")
    out = scan(video, ScanConfig())
    assert (video.width, video.height, out["scans"]["num_frames"][0].as_py()) == (160, 96, 12)
    assert out["scans"]["status"][0].as_py() == "ok"


def test_a_cover_picture_is_not_the_video(tmp_path: Path) -> None:
    import av

    make_video(tmp_path / "film.mkv", [marked(i) for i in range(12)], options={"bf": "0"})
    make_video(tmp_path / "cover.mkv", [flat(RED)], codec="mjpeg", pix_fmt="yuvj420p")
    path = tmp_path / "a.mp4"
    with (
        av.open(str(tmp_path / "cover.mkv")) as cover,
        av.open(str(tmp_path / "film.mkv")) as film,
        av.open(str(path), "w") as out,
    ):
        streams = [out.add_stream_from_template(source.streams.video[0]) for source in (cover, film)]
        streams[0].disposition = av.stream.Disposition.attached_pic
        for source, stream in zip((cover, film), streams):
            for packet in source.demux(source.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)
    video = probe(str(tmp_path), path.name, 0, ProbeConfig())
    assert (video.codec, video.stream_reason, video.status) == ("h264", "", "ok")
    assert scan(video, ScanConfig())["scans"]["num_frames"][0].as_py() == 12


def test_an_animation_of_one_picture_is_a_still_image(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("a.gif", "a.png", "a.webp"):
        Image.fromarray(marked(3)).save(tmp_path / name)
        video = probe(str(tmp_path), name, 0, ProbeConfig())
        assert (video.status, video.is_image, video.reason) == ("ok", True, "still image")


def test_a_picture_is_shown_as_its_camera_was_held(tmp_path: Path) -> None:
    from PIL import Image

    tags = Image.Exif()
    tags[0x0112] = 6  # turn clockwise
    Image.fromarray(marked(1)).save(tmp_path / "a.jpg", exif=tags)
    video = probe(str(tmp_path), "a.jpg", 0, ProbeConfig())
    assert (video.rotation, video.width, video.height) == (90, 64, 96)


def test_packets_lost_on_the_way_are_damage(tmp_path: Path) -> None:
    """No container complains here: the decoder misses what the frames refer to, or nothing can be noticed."""
    whole = make_video(tmp_path / "whole.mkv", shot(1, 36), options={"bf": "0", "x264-params": GROUPS})
    path = remux(whole, tmp_path / "a.mkv", drop=range(12, 24))
    found, outcome = decoded(path)
    assert (len(found), outcome.damaged) == (24, [])  # a whole group is gone: what is there is right
    times = sorted(found)
    assert times[12] - times[11] == Fraction(13 * 40, 1000)


def test_what_is_no_plain_file_or_has_no_name_in_utf8_is_listed_too(tmp_path: Path) -> None:
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    with open(os.fsencode(tmp_path) + b"/caf\xe9.mp4", "wb") as f:
        f.write(b"x")
    found = {f.path: f for f in list_files(str(tmp_path))}
    assert sorted(found) == ["caf\\xe9.mp4", "dangling.mp4", "pipe.mp4"]
    for path, listed in found.items():
        video = probe(str(tmp_path), path, listed.size_bytes, ProbeConfig())
        assert video.status == "unreadable"
        assert video.reason
        path.encode()
