"""Full-rate signals: known answers, the same numbers as PySceneDetect, and no trace of the batch a frame came in."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from pipelines.scan.proxy_grid import AdaptiveRule
from pipelines.shots.signals import (
    SignalCurves,
    SignalMeter,
    block_means,
    laplacian_variances,
    saturations,
    thumbnails,
)  # fmt: skip

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]


def planes(seed: int, frames: int, height: int = 90, width: int = 160) -> Planes:
    """Soft noise that jumps now and then."""
    rng = np.random.default_rng(seed)
    luma, blue, red = (np.empty((frames, height // k, width // k), np.uint8) for k in (1, 2, 2))
    for i in range(frames):
        if i == 0 or rng.random() < 0.15:
            scene = [cv2.GaussianBlur(rng.random((height // k, width // k)), (0, 0), 2) for k in (1, 2, 2)]
            scene = [(s - s.min()) / max(float(np.ptp(s)), 1e-9) for s in scene]
        for out, picture in zip((luma, blue, red), scene):
            out[i] = np.clip(20 + 200 * picture + rng.normal(0, 2, picture.shape), 0, 255)
    return luma, blue, red


def measured(parts: Planes, batches: list[int]) -> SignalCurves:
    meter, at = SignalMeter(), 0
    for size in [*batches, len(parts[0])]:
        some = [p[at : at + size] for p in parts]
        if len(some[0]):
            meter.add(list(range(at, at + len(some[0]))), *some)
        at += size
    return meter.curves()


def test_pictures_of_known_answer() -> None:
    flat = np.full((1, 90, 160), 100, np.uint8)
    assert laplacian_variances(flat).tolist() == [0]
    checker = (np.indices((90, 160)).sum(axis=0) % 2 * 219 + 16).astype(np.uint8)
    assert laplacian_variances(np.stack([flat[0], checker]))[1] > 10
    grey = np.full((1, 45, 80), 128, np.uint8)
    assert saturations(grey, grey).tolist() == [0]
    assert saturations(np.full_like(grey, 0), grey).tolist() == [1]
    assert (block_means(flat, 16) == 100).all()
    assert laplacian_variances(np.zeros((3, 2, 8), np.uint8)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("height", "width"), [(90, 160), (160, 90), (30, 480), (8, 8), (88, 162)])
def test_thumbnails_are_the_means_of_the_cells(height: int, width: int) -> None:
    parts = planes(1, 2, height, width)
    want = [cv2.resize(p[1], (n, n), interpolation=cv2.INTER_AREA) for p, n in zip(parts, (16, 8, 8))]
    got = thumbnails(*parts)[1].astype(int)
    if min(height, width) >= 16:  # OpenCV interpolates where it enlarges
        assert np.abs(got - np.concatenate([w.ravel() for w in want])).max() <= 2
    assert got.shape == (384,)


def test_blocks_of_one_value_keep_it_at_every_size() -> None:
    for side in (8, 9, 31, 160, 480):
        for value in (0, 1, 254, 255):
            assert (block_means(np.full((2, side, 90), value, np.uint8), 16) == value).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 50), st.lists(st.integers(1, 9), max_size=6))
def test_a_frames_numbers_do_not_depend_on_its_batch(seed: int, batches: list[int]) -> None:
    parts = planes(seed, 24, 66, 92)
    whole, split = measured(parts, []), measured(parts, batches)
    for name in SignalCurves.__slots__:
        assert np.array_equal(getattr(whole, name), getattr(split, name)), name


@pytest.mark.parametrize("seed", range(3))
def test_change_and_cuts_are_those_of_pyscenedetect(seed: int) -> None:
    luma, blue, red = planes(seed, 80)
    detector = AdaptiveDetector(adaptive_threshold=3.0, min_scene_len=1, window_width=2, min_content_val=10.0)
    theirs, values = [], []
    for i in range(80):
        small = cv2.resize(luma[i], (80, 45), interpolation=cv2.INTER_AREA)
        bgr = cv2.cvtColor(cv2.merge([small, red[i], blue[i]]), cv2.COLOR_YCrCb2BGR)
        theirs += [c.frame_num for c in detector.process_frame(FrameTimecode(i, fps=25.0), bgr)]
        values.append(detector._frame_score)
    change = measured((luma, blue, red), [7, 30]).change
    assert np.allclose(change, values, rtol=1e-6)
    rule = AdaptiveRule(ratio=3.0, min_change=10.0, window=2)
    assert [i for i in range(80) if rule.is_cut(change.tolist(), i)] == theirs != []


def test_a_pictures_saturation_does_not_depend_on_its_batch() -> None:
    rng = np.random.default_rng(0)
    blue, red = rng.integers(0, 256, (2, 9, 23, 41)).astype(np.uint8)
    whole = saturations(blue, red)
    assert [saturations(b[None], r[None])[0] for b, r in zip(blue, red)] == whole.tolist()
    by_hand = np.hypot(blue.astype(float) - 128, red.astype(float) - 128).mean(axis=(1, 2)) / 128
    assert np.allclose(whole, by_hand, atol=1e-6)
