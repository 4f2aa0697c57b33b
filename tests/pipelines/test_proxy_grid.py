"""Which frames get a proxy, and that a part of a video chooses what the whole would."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.scan.proxy_grid import AdaptiveRule, ProxyGrid

RULE = AdaptiveRule(ratio=3.0, min_change=10.0, window=2)
BASE = Fraction(1, 1000)


def chosen(
    pts: list[int], changes: list[float], *, batch: int = 7, is_start: bool = True, is_end: bool = True
) -> list[int]:
    grid = ProxyGrid(BASE, 4.0, RULE, is_start=is_start)
    found = []
    for i in range(0, len(pts), batch):
        found += grid.add(pts[i : i + batch], changes[i : i + batch])
    found += grid.finish(is_end=is_end)
    assert grid.decided == len(pts)
    return found


def times(frames: int, step: int = 40, start: int = 0) -> list[int]:
    return [start + i * step for i in range(frames)]


def film(frames: int, cuts: list[int]) -> list[float]:
    return [50.0 if i in cuts else 1.0 for i in range(frames)]


def test_an_even_grid_with_both_ends() -> None:
    assert chosen(times(50), film(50, [])) == [0, 7, 13, 19, 25, 32, 38, 44, 49]


def test_the_grid_starts_anew_at_a_cut_and_both_sides_have_one() -> None:
    assert chosen(times(50), film(50, [30])) == [0, 7, 13, 19, 25, 29, 30, 37, 43, 49]


def test_equal_shots_have_equal_proxies_wherever_they_stand() -> None:
    found = [i - start for start in (30, 91, 143) for i in chosen(times(300), film(300, [30, 91, 143, 204]))
             if start <= i < start + 50]  # fmt: skip
    assert found[: len(found) // 3] * 3 == found


def test_flicker_does_not_fill_the_disk() -> None:
    changes = [50.0 if i % 3 == 0 else 1.0 for i in range(400)]
    assert len(chosen(times(400), changes)) < 400 * 0.04 * 4 * 1.5


def test_a_long_take_starts_its_grid_anew_at_multiples_of_twenty_seconds() -> None:
    found = chosen(times(1400, start=10_110), film(1400, []))
    assert 248 not in found  # 20.03 s: the grid has not run for 20 s
    assert 748 in found  # 40.03 s


def test_an_empty_video_and_one_frame() -> None:
    assert chosen([], []) == []
    assert chosen([5], [0.0]) == [0]


@st.composite
def films(draw: st.DrawFn) -> tuple[list[int], list[float], int]:
    frames = draw(st.integers(30, 1500))
    steps = draw(st.sampled_from([[40], [33, 33, 34], [40, 40, 400], [500], [1]]))
    pts = [draw(st.integers(-50_000, 50_000))]
    for i in range(frames - 1):
        pts.append(pts[-1] + steps[i % len(steps)])
    noisy = draw(st.sampled_from([0.0, 0.002, 0.02, 0.3]))
    rng = draw(st.randoms(use_true_random=False))
    return pts, [50.0 if rng.random() < noisy else 1.0 for _ in range(frames)], draw(st.integers(1, frames - 6))


@settings(max_examples=40, deadline=None)
@given(films(), st.integers(1, 40))
def test_a_part_has_every_candidate_that_the_whole_needs(film: tuple[list[int], list[float], int], batch: int) -> None:
    pts, changes, seam = film
    whole = chosen(pts, changes)
    assert whole == sorted(set(whole))
    assert whole == chosen(pts, changes, batch=batch)
    head = chosen(pts[: seam + 4], changes[: seam + 4], batch=batch, is_end=False)
    tail = chosen(pts[seam:], [0.0, *changes[seam + 1 :]], batch=batch, is_start=False)
    assert {i for i in whole if i < seam} == {i for i in head if i < seam}
    assert {i for i in whole if i >= seam} <= {i + seam for i in tail}


def test_a_part_knows_its_grid_after_a_cut_or_forty_seconds() -> None:
    quiet = chosen(times(2000, start=7), film(2000, []), is_start=False)
    assert len([i for i in quiet if i > 1010]) < 170
    cut = chosen(times(2000, start=7), film(2000, [100]), is_start=False)
    assert [i for i in cut if i <= 100] == list(range(101))
    assert len([i for i in cut if i > 101]) < 1900 * 0.17
