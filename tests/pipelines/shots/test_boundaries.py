"""Cuts, fades, dissolves and flashes in footage whose boundaries are known."""

from pathlib import Path

import numpy as np
import pytest

from schemas.clips import Clip
from schemas.shots import Shot
from schemas.table import to_rows
from tests.scanned import scan_and_cut
from tests.videos import make_video, shot, textured


def scan_frames(path: Path, frames: list[np.ndarray], fps: int = 25) -> tuple[list[Shot], list[Clip]]:
    make_video(path, frames, fps)
    out = scan_and_cut(path)
    shots = sorted(to_rows(out["shots"], Shot), key=lambda s: s.shot_index)
    return shots, sorted(to_rows(out["clips"], Clip), key=lambda c: c.start_frame)


def mix(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    return (a * (1 - share) + b * share).astype(np.uint8)


def test_hard_cuts_are_found_to_the_frame(tmp_path: Path) -> None:
    shots, _ = scan_frames(tmp_path / "a.mp4", shot(1, 30) + shot(2, 41) + shot(3, 25))
    assert [(s.start_frame, s.end_frame) for s in shots] == [(0, 30), (30, 71), (71, 96)]
    assert [(s.cut_in, s.cut_out) for s in shots] == [("start", "hard"), ("hard", "hard"), ("hard", "end")]


@pytest.mark.parametrize("frames", [1, 2])
def test_a_cut_right_before_the_end_is_found(tmp_path: Path, frames: int) -> None:
    shots, _ = scan_frames(tmp_path / "a.mp4", shot(1, 40) + shot(2, frames))
    assert [s.start_frame for s in shots] == [0, 40]


def test_a_cut_with_a_blended_frame_is_one_cut(tmp_path: Path) -> None:
    first, second = shot(1, 30, step=0), shot(2, 30, step=0)
    shots, _ = scan_frames(tmp_path / "a.mp4", [*first, mix(first[-1], second[0], 0.5), *second])
    assert len(shots) == 2
    assert shots[1].start_frame in (30, 31)


def test_a_fast_pan_in_repeated_frames_is_one_shot(tmp_path: Path) -> None:
    """30 frames a second in a file of 60, the camera now fast and now slow."""
    steps = np.cumsum([9 if i // 5 % 2 else 1 for i in range(40)])
    frames = [textured(4, shift=int(s)) for s in steps for _ in range(2)]
    shots, _ = scan_frames(tmp_path / "a.mp4", frames, 60)
    assert len(shots) == 1


def test_a_fast_pan_is_one_shot(tmp_path: Path) -> None:
    shots, _ = scan_frames(tmp_path / "a.mp4", shot(4, 60, step=9))
    assert len(shots) == 1


def test_a_flash_is_no_cut(tmp_path: Path) -> None:
    frames = shot(5, 60)
    for i in (30, 31):
        frames[i] = np.full_like(frames[i], 250)
    shots, _ = scan_frames(tmp_path / "a.mp4", frames)
    assert [s.cut_in for s in shots if s.cut_in == "hard"] == []


@pytest.mark.parametrize("length", [8, 16, 24])
def test_a_dissolve_is_trimmed_by_its_own_extent(tmp_path: Path, length: int) -> None:
    first, second = shot(6, 40 + length, step=0), shot(7, 40 + length, step=0)
    middle = [mix(first[40 + i], second[i], (i + 1) / (length + 1)) for i in range(length)]
    shots, _ = scan_frames(tmp_path / "a.mp4", first[:40] + middle + second[length:])
    assert len(shots) == 2
    assert shots[0].cut_out == shots[1].cut_in == "dissolve"
    assert abs(shots[0].end_frame - 40) <= 1
    assert abs(shots[1].start_frame - (40 + length)) <= 1


def test_a_dissolve_out_of_flickering_light_is_one(tmp_path: Path) -> None:
    first, second = shot(6, 56, step=0), shot(7, 56, step=0)
    lit = [np.clip(f * (0.75 if i % 2 else 1.2), 0, 255).astype(np.uint8) for i, f in enumerate(first)]
    middle = [mix(lit[40 + i], second[i], (i + 1) / 17) for i in range(16)]
    shots, _ = scan_frames(tmp_path / "a.mp4", lit[:40] + middle + second[16:])
    assert [s.cut_in for s in shots] == ["start", "dissolve"]
    assert abs(shots[0].end_frame - 40) <= 3
    assert abs(shots[1].start_frame - 56) <= 3


def test_a_thing_that_moves_evenly_is_no_dissolve(tmp_path: Path) -> None:
    """It changes the picture in even shares, and keeps its contrast."""
    base, frames = textured(9), []
    for i in range(60):
        frame = base.copy()
        x = 10 + 6 * min(max(i - 20, 0), 20)
        frame[30:70, x : x + 30] = 235
        frames.append(frame)
    shots, _ = scan_frames(tmp_path / "a.mp4", frames)
    assert len(shots) == 1


def test_a_fade_through_black_is_trimmed_by_its_own_extent(tmp_path: Path) -> None:
    first, second, black = shot(8, 40), shot(9, 40), np.zeros((96, 160, 3), np.uint8)
    out = [mix(first[-1], black, (i + 1) / 11) for i in range(10)]
    back = [mix(black, second[0], (i + 1) / 11) for i in range(10)]
    shots, _ = scan_frames(tmp_path / "a.mp4", first + out + [black] * 3 + back + second)
    assert len(shots) == 2
    assert shots[0].cut_out == shots[1].cut_in == "fade"
    assert abs(shots[0].end_frame - 40) <= 2
    assert abs(shots[1].start_frame - 63) <= 2


def test_a_cut_between_two_greys_with_noise_of_hue_is_no_cut(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grey = textured(3).mean(axis=2, keepdims=True).repeat(3, axis=2)
    frames = [np.clip(grey + rng.integers(-2, 3, (96, 160, 3)), 0, 255).astype(np.uint8) for _ in range(50)]
    shots, _ = scan_frames(tmp_path / "a.mp4", frames)
    assert len(shots) == 1


def test_flickering_light_is_no_cut_and_hides_none(tmp_path: Path) -> None:
    flicker = [np.clip(f * (0.65 if i % 2 else 1.3), 0, 255).astype(np.uint8) for i, f in enumerate(shot(2, 40))]
    shots, _ = scan_frames(tmp_path / "a.mp4", shot(1, 40) + flicker)
    assert [s.start_frame for s in shots] == [0, 40]


def test_every_frame_of_a_plain_video_is_in_exactly_one_clip(tmp_path: Path) -> None:
    _, clips = scan_frames(tmp_path / "a.mp4", shot(1, 30) + shot(2, 3) + shot(3, 50))
    covered = [i for c in clips for i in range(c.start_frame, c.end_frame)]
    assert covered == list(range(83))


def test_every_frame_is_in_a_clip_or_in_a_boundary_that_says_why_not(tmp_path: Path) -> None:
    first, second, black = shot(6, 70, step=0), shot(7, 70, step=0), np.zeros((96, 160, 3), np.uint8)
    middle = [mix(first[40], second[0], (i + 1) / 16) for i in range(15)]
    out = [mix(second[0], black, (i + 1) / 11) for i in range(10)]
    frames = first[:40] + middle + second[:30] + out + [black] * 3 + shot(8, 30)
    frames[10] = frames[11] = np.full_like(black, 250)
    tables = scan_and_cut(make_video(tmp_path / "a.mp4", frames))
    clips = [(c["start_frame"], c["end_frame"]) for c in tables["clips"].to_pylist()]
    rows = tables["boundaries"].to_pylist()
    dropped = [(b["start_frame"], b["end_frame"]) for b in rows if b["kind"] in ("fade", "dissolve", "damage")]
    assert sorted(b["kind"] for b in rows) == ["dissolve", "fade", "flash", "hard"]  # the fade ends in a cut
    assert sorted(i for a, b in clips + dropped for i in range(a, b)) == list(range(len(frames)))
    assert all(c["max_inner_boundary"] < 0.5 for c in tables["clips"].to_pylist())


def test_a_clip_never_crosses_a_cut(tmp_path: Path) -> None:
    shots, clips = scan_frames(tmp_path / "a.mp4", shot(1, 30) + shot(2, 30))
    assert all(c.max_inner_boundary < 0.5 for c in clips)
    assert {c.shot_id for c in clips} == {s.shot_id for s in shots}
