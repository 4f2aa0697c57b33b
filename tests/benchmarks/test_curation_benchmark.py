"""The benchmark of curation: its command, what it counts, and what it keeps."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import curation, footage, machine
from tests.videos import make_video, shot


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["curation", *words])
    return curation.main()


def test_scan_is_measured_beside_ffmpeg_on_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        make_video(tmp_path / "in" / f"{name}.mp4", shot(1, 40))
    (tmp_path / "in" / "c.mp4").write_bytes(b"no video")
    make_video(tmp_path / "hd.mp4", shot(2, 30))
    monkeypatch.setattr(footage, "full_hd", lambda folder, work, seconds: tmp_path / "hd.mp4")
    monkeypatch.setattr(machine, "RESULTS", tmp_path / "results")
    words = ("--footage", str(tmp_path / "in"), "--work", str(tmp_path / "work"), "--runs", "2", "--json", "--keep")
    assert run(monkeypatch, "scan", *words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "results" / "curation-scan.json").read_text())
    assert (found["mixed"]["files"], found["mixed"]["frames"], found["mixed"]["decode_passes_per_source"]) == (2, 80, 1)
    assert found["full_hd"]["frames"] == 30
    assert all(cost > 0 for cost in found["mixed"]["scan_cpu_s"] + found["mixed"]["ffmpeg_cpu_s"])
    assert found["machine"]["cores"] >= 1
    assert "hostname" not in json.dumps(found).lower()


def test_what_is_missing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--footage", str(tmp_path / "absent"), "--work", str(tmp_path / "work"))
    assert run(monkeypatch, "scan", *words) == 2
    assert "name its folder with --footage" in capsys.readouterr().err
