"""A clip file holds exactly the frames of its span, upright, cropped, with square pixels."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.video.cut import CutConfig, CutFailed, cut
from pipelines.video.probe import ProbeConfig, probe
from schemas.clips import Clip
from schemas.table import to_rows
from tests.scanned import scan_and_cut
from tests.videos import decode_all, make_video, numbered, read_number


def span(path: Path, start: int, end: int, crop: list[int] | None = None) -> tuple[object, Clip]:
    """The video's row and a clip of its frames [start, end)."""
    video = probe(str(path.parent), path.name, path.stat().st_size, ProbeConfig())
    out = scan_and_cut(path)
    pts = out["signals"]["pts"][0].as_py()
    clip = to_rows(out["clips"], Clip)[0]
    base = Fraction(clip.time_base_num, clip.time_base_den)
    last = pts[end] if end < len(pts) else pts[-1] + (pts[-1] - pts[-2])
    values = {n: getattr(clip, n) for n in Clip.__slots__}
    values.update(start_frame=start, end_frame=end, start_pts=pts[start], end_pts=last, crop=crop)
    values.update(fps=float((end - start) / ((last - pts[start]) * base)))
    return video, Clip(**values)


@pytest.mark.parametrize(("start", "end"), [(0, 12), (7, 31), (24, 25), (35, 50)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_the_cut_is_exact_to_the_frame(tmp_path: Path, start: int, end: int, suffix: str) -> None:
    path = make_video(tmp_path / f"a{suffix}", [numbered(i) for i in range(50)], options={"bf": "2"})
    video, clip = span(path, start, end)
    made = cut(video, clip, str(tmp_path / "out.mp4"), CutConfig(), ProbeConfig())  # type: ignore[arg-type]
    assert made.num_frames == end - start
    assert [read_number(p) for _, p in decode_all(tmp_path / "out.mp4")] == list(range(start, end))


def test_a_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    times = [0, 40, 50, 170, 210, 400, 440, 1000, 1040, 1080]
    path = make_video(tmp_path / "v.mkv", [numbered(i) for i in range(10)], times=times, time_base=Fraction(1, 1000))
    video, clip = span(path, 2, 8)
    cut(video, clip, str(tmp_path / "out.mp4"), CutConfig(), ProbeConfig())  # type: ignore[arg-type]
    found = [float(t) for t, _ in decode_all(tmp_path / "out.mp4")]
    assert [t - found[0] for t in found] == pytest.approx([(t - 50) / 1000 for t in times[2:8]], abs=0.002)


def test_rotation_pixel_shape_and_crop_are_undone(tmp_path: Path) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[8:40, 16:48] = (250, 250, 250)
    path = make_video(tmp_path / "r.mp4", [picture] * 20, rotation=-90)
    video, clip = span(path, 0, 20, crop=[8, 16, 32, 32])
    made = cut(video, clip, str(tmp_path / "out.mp4"), CutConfig(), ProbeConfig())  # type: ignore[arg-type]
    assert (made.width, made.height) == (32, 32)
    assert np.mean([p.min() for _, p in decode_all(tmp_path / "out.mp4")]) > 200  # the white square, and nothing else


def test_odd_sizes_lose_one_pixel_at_most(tmp_path: Path) -> None:
    path = make_video(tmp_path / "o.webm", [numbered(i)[:63, :95] for i in range(12)], codec="libvpx-vp9")
    video, clip = span(path, 0, 12)
    made = cut(video, clip, str(tmp_path / "out.mp4"), CutConfig(), ProbeConfig())  # type: ignore[arg-type]
    assert (made.width, made.height, made.num_frames) == (94, 62, 12)


def test_a_span_that_is_not_there_fails_with_a_reason_and_leaves_no_file(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", [numbered(i) for i in range(20)])
    video, clip = span(path, 0, 20)
    values = {n: getattr(clip, n) for n in Clip.__slots__}
    longer = Clip(**{**values, "end_frame": 30, "end_pts": clip.end_pts * 2})
    with pytest.raises(CutFailed, match="expected 30 frames"):
        cut(video, longer, str(tmp_path / "out.mp4"), CutConfig(), ProbeConfig())  # type: ignore[arg-type]
    assert not (tmp_path / "out.mp4").exists()


def test_a_source_that_changes_its_size_on_the_way_gives_one_size(tmp_path: Path) -> None:
    first = make_video(tmp_path / "first.ts", [numbered(i) for i in range(24)], options={"bf": "0"})
    then = make_video(tmp_path / "then.ts", [numbered(24 + i, 72, 46) for i in range(24)], options={"bf": "0"})
    path = tmp_path / "a.h264"
    with open(path, "wb") as out:
        for part in (first, then):
            with av.open(str(part)) as container:
                for packet in container.demux(container.streams.video[0]):
                    out.write(bytes(packet))
    video, clip = span(path, 24, 36)
    made = cut(video, clip, str(tmp_path / "out.mp4"), CutConfig(), ProbeConfig())  # type: ignore[arg-type]
    assert (made.width, made.height, made.num_frames) == (96, 64, 12)
    assert [read_number(p) for _, p in decode_all(tmp_path / "out.mp4")] == list(range(24, 36))


def test_the_last_words_of_ffmpeg_hold_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\ncat > /dev/null\necho '[out#0/mp4 @ 0x5632188] Nothing was written' >&2\nexit 7\n")
    fake.chmod(0o755)
    monkeypatch.setenv("DAILIES_FFMPEG", str(fake))
    video, clip = span(make_video(tmp_path / "a.mp4", [numbered(i) for i in range(20)]), 0, 20)
    with pytest.raises(CutFailed, match=r"^ffmpeg ended with 7: \[out#0/mp4\] Nothing was written$"):
        cut(video, clip, str(tmp_path / "out.mp4"), CutConfig(), ProbeConfig())  # type: ignore[arg-type]


def test_an_ffmpeg_that_fails_gives_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAILIES_FFMPEG", "/bin/false")
    path = make_video(tmp_path / "a.mp4", [numbered(i) for i in range(20)])
    video, clip = span(path, 0, 20)
    with pytest.raises(CutFailed, match="ffmpeg ended with"):
        cut(video, clip, str(tmp_path / "out.mp4"), CutConfig(), ProbeConfig())  # type: ignore[arg-type]


def test_the_fields_of_an_interlaced_frame_become_one_picture(tmp_path: Path) -> None:
    """A bar that moves between the two fields of a frame leaves a comb, and the cut file has none."""
    frames = []
    for i in range(20):
        picture = np.full((64, 96, 3), 40, np.uint8)
        for field in (0, 1):
            left = 4 + 3 * i + 12 * field
            picture[field::2, left : left + 12] = 220
        frames.append(picture)
    options = {"bf": "0", "x264-params": "tff=1"}
    path = make_video(tmp_path / "i.mkv", frames, options=options)
    video, clip = span(path, 2, 12)
    assert video.field_order == "top"  # type: ignore[attr-defined]
    made = cut(video, clip, str(tmp_path / "out.mp4"), CutConfig(), ProbeConfig())  # type: ignore[arg-type]
    assert made.num_frames == 10

    def comb(picture: np.ndarray) -> float:
        rows = picture[..., 1].astype(float)
        return float(np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean())

    before = np.mean([comb(p) for _, p in decode_all(path)[2:12]])
    after = np.mean([comb(p) for _, p in decode_all(tmp_path / "out.mp4")])
    assert after < before / 3
