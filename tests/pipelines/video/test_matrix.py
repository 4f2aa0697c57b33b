"""Each odd but whole video: exact times, shown size, upright proxies of the right brightness, and exact cuts."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.video.cut import CutConfig, cut
from pipelines.video.frames import read_jpeg
from pipelines.video.probe import ProbeConfig, probe
from pipelines.video.read import read_frames
from schemas.clips import Clip
from schemas.videos import Video
from tests.pipelines.video.matrix import MAKERS, Truth
from tests.scanned import scan_and_cut
from tests.videos import BLACK, BLUE, RED, WHITE, decode_all, read_number

Scanned = tuple[Truth, Video, dict[str, pa.Table]]


@pytest.fixture(scope="module")
def scanned(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Truth, Video, dict[str, pa.Table]]:
    truth = MAKERS[request.param](tmp_path_factory.mktemp(request.param))
    video = probe(str(truth.path.parent), truth.path.name, truth.path.stat().st_size, ProbeConfig())
    return truth, video, scan_and_cut(truth.path)


each = pytest.mark.parametrize("scanned", MAKERS, indirect=True)


@each
def test_it_is_whole_and_described_as_it_is(scanned: Scanned) -> None:
    truth, video, out = scanned
    assert (video.status, video.reason) == ("ok", "")
    assert (video.width, video.height) == truth.size
    assert {name: getattr(video, name) for name in truth.row} == truth.row
    (row,) = out["scans"].to_pylist()
    assert (row["status"], row["reason"], row["damaged"], row["decode_passes"]) == ("ok", "", [], 1)
    assert row["num_frames"] == len(truth.numbers)


@each
def test_every_frame_has_its_exact_time(scanned: Scanned) -> None:
    truth, video, out = scanned
    base = Fraction(video.time_base_num, video.time_base_den)
    assert [pts * base for pts in out["signals"]["pts"][0].as_py()] == list(truth.times)
    shots = sorted(out["shots"].to_pylist(), key=lambda s: s["start_frame"])
    edges = [*[s["start_frame"] for s in shots], len(truth.numbers)]
    assert [s["end_frame"] for s in shots] == edges[1:]  # nothing lost and nothing twice
    assert [s["start_pts"] * base for s in shots] == [truth.times[e] for e in edges[:-1]]
    assert [s["end_pts"] * base for s in shots[:-1]] == [truth.times[e] for e in edges[1:-1]]
    assert shots[-1]["end_pts"] * base > truth.times[-1]


@each
def test_proxies_are_the_right_frames_upright_and_of_the_right_brightness(scanned: Scanned) -> None:
    truth, _, out = scanned
    proxies = out["frames"].to_pylist()
    assert {p["frame_index"] for p in proxies} >= {0, len(truth.numbers) - 1}
    for proxy in proxies:
        picture = read_jpeg(proxy["jpeg"])
        assert picture.shape[:2] == (proxy["height"], proxy["width"])
        assert read_number(picture) == truth.numbers[proxy["frame_index"]]
        assert proxy["time_s"] == pytest.approx(float(truth.times[proxy["frame_index"]]), abs=1e-9)
        _is_upright_and_bright(picture, truth)


def _is_upright_and_bright(picture: np.ndarray, truth: Truth) -> None:
    """By the corners of `marked`: four colours, each in its place."""
    assert picture.shape[1] / picture.shape[0] == pytest.approx(truth.size[0] / truth.size[1], rel=0.03)
    high, wide = picture.shape[0] // 8, picture.shape[1] // 8
    corners = {
        WHITE: picture[2:high, 2:wide],
        RED: picture[2:high, -wide:-2],
        BLUE: picture[-high:-2, 2:wide],
        BLACK: picture[-high:-2, -wide:-2],
    }
    for color, patch in corners.items():
        wanted = [np.dot(color, (0.299, 0.587, 0.114))] * 3 if truth.gray else color
        assert list(patch.mean(axis=(0, 1))) == pytest.approx(wanted, abs=truth.near), color


@each
def test_a_cut_file_holds_the_frames_of_the_span_and_no_other(scanned: Scanned, tmp_path: Path) -> None:
    truth, video, out = scanned
    clip = span(video, out, *((3, 11) if len(truth.numbers) > 11 else (0, len(truth.numbers))))
    made = cut(video, clip, str(tmp_path / "clip.mp4"), CutConfig(), ProbeConfig())
    assert (made.width, made.height) == (truth.size[0] // 2 * 2, truth.size[1] // 2 * 2)
    decoded = decode_all(tmp_path / "clip.mp4")
    assert [read_number(p) for _, p in decoded] == list(truth.numbers[clip.start_frame : clip.end_frame])
    start, first = truth.times[clip.start_frame], decoded[0][0]
    wanted = [float(t - start) for t in truth.times[clip.start_frame : clip.end_frame]]
    assert [float(t - first) for t, _ in decoded] == pytest.approx(wanted, abs=1e-4)
    for _, picture in decoded:
        _is_upright_and_bright(picture, truth)
    ours, _ = read_frames(tmp_path / "clip.mp4")
    assert np.abs(ours.astype(int) - np.stack([p for _, p in decoded])).max() == 0


def span(video: Video, out: dict[str, pa.Table], start: int, end: int) -> Clip:
    """A clip of the frames [start, end)."""
    pts, shot = out["signals"]["pts"][0].as_py(), out["shots"].to_pylist()[0]
    last = pts[end] if end < len(pts) else shot["end_pts"]
    base = Fraction(video.time_base_num, video.time_base_den)
    return Clip(
        clip_id="c",
        video_id=video.video_id,
        shot_id=shot["shot_id"],
        start_pts=pts[start],
        end_pts=last,
        time_base_num=base.numerator,
        time_base_den=base.denominator,
        start_frame=start,
        end_frame=end,
        start_s=float(pts[start] * base),
        end_s=float(last * base),
        fps=float((end - start) / ((last - pts[start]) * base)),
        crop=None,
        width=video.width,
        height=video.height,
        max_inner_boundary=0.0,
    )
