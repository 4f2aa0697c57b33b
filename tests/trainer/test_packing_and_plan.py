"""Packs and plans: nothing lost, nothing padded, nothing over, and the same whoever asks."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.packing import fill, first_fit_decreasing, pack_stream
from trainer.plan import Plan, PlanConfig, Row

LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=300)


def mixed_lengths(count: int, seed: int = 0) -> list[int]:
    """Token counts as of images and clips of many shapes: 16 to 2048, a quarter of the budget at most."""
    rng = np.random.default_rng(seed)
    frames = np.where(rng.random(count) < 0.3, 1, rng.integers(2, 22, count))
    return np.clip(frames * rng.integers(40, 180, count), 16, 2048).tolist()


@given(LENGTHS, st.integers(100, 400))
def test_every_sample_is_in_exactly_one_pack_and_none_is_over(lengths: list[int], budget: int) -> None:
    packs = first_fit_decreasing(lengths, budget)
    assert sorted(i for p in packs for i in p) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in p) <= budget for p in packs)


@given(LENGTHS, st.integers(1, 64))
def test_a_stream_loses_and_repeats_nothing(lengths: list[int], window: int) -> None:
    packs = list(pack_stream(enumerate(lengths), 200, window))
    assert sorted(i for p in packs for i in p) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in p) <= 200 for p in packs)


def test_a_window_of_256_fills_98_percent() -> None:
    lengths = mixed_lengths(20_000)
    packs = list(pack_stream(enumerate(lengths), 8192, 256))[:-1]  # the end of a finite stream is as it is
    assert fill(([lengths[i] for i in p] for p in packs), 8192) >= 0.98


def test_a_hundred_thousand_samples_pack_in_a_second() -> None:
    lengths = mixed_lengths(100_000)
    start = time.process_time()
    count = sum(len(p) for p in pack_stream(enumerate(lengths), 8192, 256))
    assert count == 100_000
    assert time.process_time() - start < 1.0


def test_a_sample_over_the_budget_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="a sample of 300 tokens does not fit a pack of 200"):
        first_fit_decreasing([10, 300], 200)
    with pytest.raises(ValueError, match="clip b has 300 tokens and a pack holds 200"):
        Plan("m", {"a": Row(tokens=10), "b": Row(tokens=300)}, PlanConfig(budget=200))
    with pytest.raises(ValueError, match="nothing to train on"):
        Plan("m", {}, PlanConfig())


def rows(count: int = 60) -> dict[str, Row]:
    return {f"clip{i:03d}": Row(tokens=n) for i, n in enumerate(mixed_lengths(count))}


def test_the_plan_is_a_function_of_its_inputs_and_of_nothing_else() -> None:
    config = PlanConfig(budget=4096, window=64, seed=3)
    one, two = Plan("digest", rows(), config), Plan("digest", dict(reversed(rows().items())), config)
    late = two.step(17)  # asked out of order
    assert [one.step(n) for n in range(30)] == [two.step(n) for n in range(30)]
    assert one.step(17) == late
    assert Plan("other", rows(), config).step(0) != one.step(0)
    assert Plan("digest", rows(), PlanConfig(budget=4096, window=64, seed=4)).step(0) != one.step(0)


def test_every_epoch_sees_every_row_once_and_visits_count_up() -> None:
    plan = Plan("m", rows(), PlanConfig(budget=4096, window=32, packs_per_step=2))
    visits = list(itertools.chain.from_iterable(p for n in range(60) for p in plan.step(n)))
    by_epoch = {e: [v.clip_id for v in visits if v.epoch == e] for e in range(3)}
    assert all(sorted(ids) == sorted(rows()) for ids in by_epoch.values())
    assert all(v.visit == v.epoch for v in visits)
    assert by_epoch[0] != by_epoch[1]


@given(st.integers(0, 3), st.integers(1, 9))
def test_first_epochs_of_images_see_the_first_latent_frame_of_every_row(epochs: int, frames: int) -> None:
    table = {f"clip{i}": Row(tokens=frames * (i + 1), frames=frames) for i in range(12)}
    plan = Plan("m", table, PlanConfig(budget=128, window=8, image_epochs=epochs))
    packs = [p for n in range(60) for p in plan.step(n)]
    seen = [v for p in packs for v in p]
    assert {v.epoch for v in seen if v.image} == set(range(epochs))
    assert all(v.image == (v.epoch < epochs) for v in seen)
    assert all(sorted(v.clip_id for v in seen if v.epoch == e) == sorted(table) for e in range(epochs))
    assert all(plan.tokens(v) == table[v.clip_id].tokens // (frames if v.image else 1) for v in seen)
    assert all(sum(plan.tokens(v) for v in p) <= 128 for p in packs)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2), st.floats(0.0, 0.99))
def test_a_share_of_the_later_visits_are_images(epochs: int, share: float) -> None:
    table = {f"clip{i:03d}": Row(tokens=9, frames=3) for i in range(200)}
    config = PlanConfig(budget=128, window=8, image_epochs=epochs, image_share=share)
    one, again = Plan("m", table, config), Plan("m", table, config)
    seen = [v for n in range(160) for p in one.step(n) for v in p]
    assert all(v.image for v in seen if v.epoch < epochs)
    later = [v.image for v in seen if v.epoch >= epochs]
    assert np.mean(later) == pytest.approx(share, abs=5 * (0.25 / len(later)) ** 0.5)
    assert seen == [v for n in range(160) for p in again.step(n) for v in p]


def test_an_image_share_of_one_would_leave_no_clips() -> None:
    with pytest.raises(ValueError, match=r"image_share must lie in \[0, 1\), got 1"):
        PlanConfig(image_share=1.0)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.2, 3.0))
def test_a_weight_is_how_often_a_row_is_seen_per_epoch(weight: float) -> None:
    table = {"heavy": Row(tokens=1, weight=weight), "plain": Row(tokens=1)}
    plan = Plan("m", table, PlanConfig(budget=64, window=64))
    visits = [v for n in range(40) for p in plan.step(n) for v in p]
    epochs = max(v.epoch for v in visits)
    seen = sum(v.clip_id == "heavy" and v.epoch < epochs for v in visits)
    assert seen / epochs == pytest.approx(weight, abs=0.15)


def test_steps_of_the_plan_are_full() -> None:
    assert Plan("m", rows(300), PlanConfig(budget=8192, window=256)).fill(100) >= 0.98
