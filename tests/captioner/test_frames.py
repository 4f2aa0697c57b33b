"""Which frames a captioner sees, and that training and inference see the same."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.frames import FrameSpec, crop_box, moments, pixels, size_for, span_of
from captioner.jobs import job_of
from captioner.train.data import example
from captioner.train.tokenizer import train_tokenizer
from tests.captioner.worlds import jpeg, pair

SPEC = FrameSpec()


@pytest.mark.parametrize(
    ("count", "chosen"),
    [
        (8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (16, [1, 3, 5, 7, 9, 11, 13, 15]),
        (4, [0, 0, 1, 1, 2, 2, 3, 3]),
        (1, [0] * 8),
    ],
)
def test_frames_lie_evenly_over_the_span(count: int, chosen: list[int]) -> None:
    times = [10 + 2 * i / count for i in range(count)]
    assert moments(times, 10.0, 12.0, 8) == chosen


def test_frames_outside_the_span_are_never_shown() -> None:
    times = [i / 4 for i in range(40)]
    chosen = moments(times, 2.0, 4.0, 8)
    assert [times[i] for i in chosen] == [2.0 + i / 4 for i in range(8)]


def test_a_gap_holds_the_frame_before_it() -> None:
    assert moments([0.0, 1.9], 0.0, 2.0, 4) == [0, 0, 0, 0]
    assert moments([1.5], 0.0, 2.0, 4) == [0, 0, 0, 0]


def test_a_span_without_frames_says_so() -> None:
    with pytest.raises(ValueError, match=r"no frame between 5\.000 s and 6\.000 s"):
        moments([0.0, 1.0], 5.0, 6.0, 8)


@given(st.integers(16, 4000), st.integers(16, 4000))
def test_sizes_keep_cell_area_and_ratio(width: int, height: int) -> None:
    high, wide = size_for(width, height, SPEC)
    assert high % 8 == wide % 8 == 0
    assert SPEC.area / 2 <= high * wide <= SPEC.area * 2
    if 0.4 < width / height < 2.5:
        assert abs(math.log(wide * height / (high * width))) < 0.25


@pytest.mark.parametrize(
    ("shown", "seen"),
    [
        ((1920, 1080), (40, 64)),
        ((1080, 1920), (64, 40)),
        ((640, 480), (40, 56)),
        ((480, 480), (48, 48)),
        ((1024, 428), (32, 72)),
    ],
)
def test_proxies_are_seen_at_the_size_that_pairs_are_rendered_at(shown: tuple[int, int], seen: tuple[int, int]) -> None:
    assert size_for(*shown, SPEC) == seen
    assert size_for(seen[1], seen[0], SPEC) == seen


def test_training_and_inference_see_the_same_tensor_for_the_same_frames() -> None:
    learned = pair(1, size=(64, 48))
    tokenizer = train_tokenizer([learned.short, learned.dense], 300)
    trained_on = example(learned, SPEC, tokenizer, {}).frames
    start_s, end_s = 7.5, 7.5 + span_of(learned.times_s)[1]
    proxies = [
        {"frame_index": 75 + n, "time_s": 7.5 + t, "width": 64, "height": 48, "jpeg": data}
        for n, (t, data) in enumerate(zip(learned.times_s, learned.frames))
    ]
    stray = {"frame_index": 60, "time_s": 6.0, "width": 64, "height": 48, "jpeg": jpeg((0, 0, 0), 64, 48)}
    clip = {"clip_id": "c", "start_frame": 75, "end_frame": 83, "start_s": start_s, "end_s": end_s, "crop": None}
    job = job_of(clip, [stray, *proxies], (64, 48), SPEC)
    np.testing.assert_array_equal(pixels(job.jpegs, SPEC, job.box), trained_on)
    assert job.size == trained_on.shape[1:3]
    assert job.frame_indices == tuple(range(75, 83))


def test_a_crop_in_display_pixels_is_taken_from_the_proxy() -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[12:36] = 200  # letterboxed: bars above and below
    assert crop_box([0, 240, 1280, 480], (1280, 960), (64, 48)) == (0.0, 12.0, 64.0, 36.0)
    assert crop_box(None, (1280, 960), (64, 48)) is None
    data = jpeg((200, 200, 200), 64, 48)
    seen = pixels([data], SPEC, (0.0, 12.0, 64.0, 36.0))
    assert seen.shape[1:3] == size_for(64, 24, SPEC)


def test_a_frame_that_does_not_decode_is_an_error_with_words() -> None:
    with pytest.raises(ValueError, match="does not decode"):
        pixels([jpeg((9, 9, 9), 16, 16), b"no picture"], SPEC)
    with pytest.raises(ValueError, match="does not decode"):
        pixels([jpeg((9, 9, 9), 64, 64)[:-200]], SPEC)


def test_without_an_area_a_proxy_keeps_its_own_size() -> None:
    assert pixels([jpeg((9, 9, 9), 50, 34)], FrameSpec(area=0, multiple=1)).shape == (1, 34, 50, 3)
