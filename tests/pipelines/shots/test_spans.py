"""Boundaries to shots to clips: pure functions on indices and times."""

import itertools
from fractions import Fraction

import hypothesis
import numpy as np
from hypothesis import strategies as st

from pipelines.shots.boundaries import Times
from pipelines.shots.detect import CutConfig, cut_evidence
from pipelines.shots.fades import Transition
from pipelines.shots.letterbox import EdgeConfig, LetterboxConfig, crop_box, edges
from pipelines.shots.spans import SpanConfig, join_short, shot_ranges, split_evenly


def times(num: int, step: int = 1, base: Fraction = Fraction(1, 25)) -> Times:
    return Times(np.arange(num, dtype=np.int64) * step, num * step, base)


@hypothesis.given(
    st.integers(1, 300),
    st.lists(st.integers(0, 310), max_size=8),
    st.lists(st.tuples(st.integers(0, 290), st.integers(1, 20)), max_size=4),
    st.sets(st.integers(0, 299), max_size=30),
)
def test_shots_are_ordered_disjoint_and_hold_every_intact_frame(
    num: int, cuts: list[int], gradual: list[tuple[int, int]], bad: set[int]
) -> None:
    transitions = [Transition(a, min(num, a + n), "fade") for a, n in gradual if a < num]
    damaged = np.zeros(num, bool)
    damaged[[b for b in bad if b < num]] = True
    ranges = shot_ranges(num, cuts, transitions, damaged)
    covered = [i for r in ranges for i in range(r.start, r.end)]
    mixed = {i for t in transitions for i in range(t.start, t.end)}
    assert covered == [i for i in range(num) if not damaged[i] and i not in mixed]
    assert all(r.start < r.end for r in ranges)


def test_shots_say_what_they_are_bounded_by() -> None:
    damaged = np.zeros(100, bool)
    damaged[80:85] = True
    ranges = shot_ranges(100, [20], [Transition(40, 50, "dissolve")], damaged)
    assert [(r.start, r.end, r.cut_in, r.cut_out) for r in ranges] == [
        (0, 20, "start", "hard"),
        (20, 40, "hard", "dissolve"),
        (50, 80, "dissolve", "damage"),
        (85, 100, "damage", "end"),
    ]


@hypothesis.given(st.integers(1, 3000), st.floats(0.1, 30))
def test_a_split_is_even_and_complete(num: int, limit: float) -> None:
    parts = split_evenly(0, num, times(num), limit)
    assert parts[0][0] == 0
    assert parts[-1][1] == num
    assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
    lengths = [b - a for a, b in parts]
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) / 25 <= limit + 1 / 25 + 1e-9


def test_a_split_is_even_in_time_not_in_frames() -> None:
    pts = np.concatenate([np.arange(100), 100 + np.arange(100) * 9])  # the second half runs at a ninth of the rate
    first, second = split_evenly(0, 200, Times(pts, 1000, Fraction(1, 100)), 5.0)
    assert abs((pts[first[1]] - 0) - 500) <= 9
    assert second[1] == 200


def box(rows: list[np.ndarray], columns: np.ndarray) -> list[int] | None:
    return crop_box([edges(r, columns, EdgeConfig()) for r in rows], 1280, 720, LetterboxConfig())


def test_a_short_shot_joins_over_its_weaker_cut_and_only_where_that_is_allowed() -> None:
    curve = np.zeros(300, np.float32)
    curve[[100, 120, 200]] = 0.6, 0.8, 1.0
    cuts = [100, 120, 200]
    assert join_short(cuts, [], curve, times(300), SpanConfig()) == cuts
    assert join_short(cuts, [], curve, times(300), SpanConfig(join_below=0.9)) == [120, 200]
    assert join_short(cuts, [], curve, times(300), SpanConfig(join_below=0.9, min_clip_s=0.5)) == cuts
    faded = [Transition(90, 99, "fade")]
    assert join_short([120, 200], faded, curve, times(300), SpanConfig(join_below=0.9)) == [200]


def test_bars_become_a_crop_and_a_dark_scene_does_not() -> None:
    rows, columns = np.full(720, 16, np.uint8), np.full(1280, 200, np.uint8)
    rows[91:629] = 200
    assert box([rows] * 4, columns) == [0, 92, 1280, 536]
    night = (16 + 100 * np.exp(-(((np.arange(720) - 360) / 120) ** 2))).astype(np.uint8)
    assert box([night] * 4, columns) is None
    assert box([np.full(720, 16, np.uint8)], columns) is None
    assert crop_box([], 1280, 720, LetterboxConfig()) is None


def test_one_bright_frame_tells_that_there_is_no_bar() -> None:
    rows, columns = np.full(720, 16, np.uint8), np.full(1280, 200, np.uint8)
    rows[90:630] = 200
    bright = np.full(720, 200, np.uint8)
    assert box([rows, rows, bright], columns) is None


def test_cuts_of_an_empty_or_one_frame_video_are_none() -> None:
    for num in (0, 1):
        curve = cut_evidence(np.zeros(num, np.float32), np.zeros((num, 384), np.uint8), CutConfig())
        assert curve.tolist() == [0] * num
