"""Small pictures and proxies."""

from pathlib import Path

import av
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from pipelines.video.frames import ProxyMaker, Shrinker, nearest_indices, proxy_size, read_jpeg, small_size
from tests.videos import textured


def frame_of(picture: np.ndarray, format: str = "yuv420p") -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=format)


@hypothesis.given(st.integers(16, 8192), st.integers(16, 8192))
def test_the_small_picture_is_even_bounded_and_never_larger(width: int, height: int) -> None:
    w, h = small_size(width, height)
    assert w % 2 == h % 2 == 0
    assert w <= max(8, width)
    assert h <= max(8, height)
    assert w * h <= 160 * 90 * 1.01 + 8 * 160


@hypothesis.given(st.integers(1, 8192), st.integers(1, 8192))
def test_a_proxy_keeps_the_aspect_ratio_and_is_never_enlarged(width: int, height: int) -> None:
    w, h = proxy_size(width, height, 144, 256 * 144)
    assert 1 <= w <= width
    assert 1 <= h <= height
    assert min(w, h) <= 144
    if min(w, h) >= 20:
        assert w / h == pytest.approx(width / height, rel=0.06)


@pytest.mark.parametrize("format", ["yuv420p", "yuvj420p", "yuv444p", "rgb24", "gray", "yuv420p10le"])
def test_luma_means_the_same_in_every_pixel_format(format: str) -> None:
    picture = np.repeat(textured(1, 320, 180).mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    luma = Shrinker(320, 180).shrink(frame_of(picture, format)).luma
    want = Shrinker(320, 180).shrink(frame_of(picture)).luma
    assert luma.shape == want.shape
    assert abs(float(luma.mean()) - float(want.mean())) < 1.5


def test_a_change_of_size_on_the_way_is_survived() -> None:
    shrinker = Shrinker(320, 180)
    first = shrinker.shrink(frame_of(textured(1, 320, 180)))
    second = shrinker.shrink(frame_of(textured(1, 640, 360)))
    assert first.luma.shape == second.luma.shape


@pytest.mark.parametrize(("rotation", "corner"), [(0, (0, 0)), (90, (0, -1)), (180, (-1, -1)), (270, (-1, 0))])
def test_a_proxy_is_upright(rotation: int, corner: tuple[int, int]) -> None:
    picture = np.zeros((96, 160, 3), np.uint8)
    picture[:30, :50] = 255  # the coded picture's top left, turned clockwise for display
    size = (160, 96) if rotation in (0, 180) else (96, 160)
    shown = read_jpeg(ProxyMaker(size, rotation, 90).jpeg(frame_of(picture)))
    assert shown.shape[:2] == size[::-1]
    assert shown[corner].mean() > 200
    assert shown.mean() < 60


def test_borders_turn_with_the_picture() -> None:
    picture = np.zeros((96, 160, 3), np.uint8)
    picture[10:20] = 255
    rows, columns = ProxyMaker((96, 160), 90, 90).borders(frame_of(picture))
    assert (len(rows), len(columns)) == (160, 96)
    assert columns[96 - 15] > 200  # a row near the top is a column near the right after a clockwise turn
    assert columns[15] < 40


@hypothesis.given(st.integers(0, 200), st.integers(1, 20))
def test_indices_are_distinct_sorted_and_reach_both_ends(num: int, count: int) -> None:
    chosen = nearest_indices(num, count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(num, count)
    if num > 1 and count > 1:
        assert (chosen[0], chosen[-1]) == (0, num - 1)


def test_a_missing_file_is_a_row_not_a_crash(tmp_path: Path) -> None:
    from pipelines.video.probe import ProbeConfig, probe

    assert probe(str(tmp_path), "gone.mp4", 0, ProbeConfig()).status == "unreadable"


def test_blocks_are_seen_and_texture_is_none() -> None:
    maker = ProxyMaker((160, 96), 0, 85)
    smooth = textured(3, 640, 384, shift=3)  # its own grid is of 16 pixels, and must not lie on that of 8
    noisy = np.clip(smooth + np.random.default_rng(1).normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
    blocky = np.repeat(np.repeat(smooth[4::8, 4::8], 8, axis=0), 8, axis=1)
    assert maker.blockiness(frame_of(blocky)) > 1
    assert maker.blockiness(frame_of(smooth)) < 0.1
    assert maker.blockiness(frame_of(noisy)) < 0.1
    assert maker.blockiness(frame_of(textured(1, 8, 8))) == 0
