"""Arms of an experiment: they differ in one thing, are trained once, and their intervals say what they should."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.checkpoints import AUTOENCODER_CHECKPOINT
from schemas.errors import ModelError
from schemas.latents import LATENTS
from schemas.manifest import MANIFEST
from schemas.store import Store
from tests.trainer import experiment_root
from trainer.autoencoder.pictures import middle_square
from trainer.config import DitSettings
from trainer.experiments import training
from trainer.experiments.arms import DENSE, HUMAN, Arm, caption_policies, plain, reading, steps_for
from trainer.experiments.intervals import difference, mean, ratio, ratio_difference
from trainer.experiments.sampling import Reader, Wanted, sample
from trainer.experiments.squares import square_latents
from trainer.experiments.training import train
from trainer.recipes import tiny
from trainer.selection import choose

STEPS = 5


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return experiment_root.make(tmp_path_factory.mktemp("root"))


def settings(steps: int = STEPS, seed: int = 0) -> DitSettings:
    dit = tiny().dit
    often = dataclasses.replace(dit, optimizer=dataclasses.replace(dit.optimizer, snapshot_every_s=0.0))
    return plain(DitSettings(dit=often, shape=tiny().shape), steps=steps, seed=seed, threads=1)


def arm(store: Store, name: str, seed: int = 0, **changed: Any) -> Arm:
    rows, _ = choose(store.read(MANIFEST), store.read(LATENTS).to_pylist())
    policy = caption_policies()[name]
    texts = tuple(t for r in rows for t in (r["short"], r["dense"], r["human"]))
    of = Arm(name=name, says=policy.says, settings=reading(settings(seed=seed), policy), rows=rows, texts=texts)
    return dataclasses.replace(of, **changed)


def test_arms_see_the_same_clips_with_the_same_noise_and_read_other_texts(store: Store) -> None:
    human, dense = (train(store, arm(store, name)) for name in (HUMAN, DENSE))
    assert human.key != dense.key
    left, right = human.ledger(store), dense.ledger(store)
    same = [c for c in left.column_names if c not in ("caption", "loss")]
    assert left.select(same) == right.select(same)
    assert set(left["caption"].to_pylist()) <= {"human", "none"}
    assert "human" in left["caption"].to_pylist()
    assert set(right["caption"].to_pylist()) <= {"human", "dense", "none"}
    assert "dense" in right["caption"].to_pylist()
    assert human.facts["flops"] > 0
    assert human.facts["digest"] != dense.facts["digest"]
    assert store.read_bytes(human.path, "tokenizer.json") == store.read_bytes(dense.path, "tokenizer.json")


def test_another_seed_sees_another_order(store: Store) -> None:
    one, two = (train(store, arm(store, HUMAN, seed)).ledger(store) for seed in (0, 1))
    assert one["t"].to_pylist() != two["t"].to_pylist()


def test_a_killed_arm_goes_on_and_a_finished_one_is_not_trained_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(store, arm(store, DENSE))
    other = experiment_root.make(tmp_path)
    for stop in (2, 4):
        assert train(other, arm(other, DENSE), stop_at=stop).facts == {}
    assert not other.exists("experiments", "arms")
    resumed = train(other, arm(other, DENSE))
    assert resumed.key == whole.key
    assert resumed.facts["digest"] == whole.facts["digest"]
    assert resumed.ledger(other) == whole.ledger(store)
    assert resumed.facts["flops"] == whole.facts["flops"]
    monkeypatch.setattr(training, "build", lambda *a, **k: pytest.fail("trained again"))
    again = train(other, arm(other, DENSE))
    assert (again.reused, again.facts) == (True, resumed.facts)


def test_a_name_follows_from_what_is_trained_and_from_nothing_else(store: Store) -> None:
    of = arm(store, DENSE)
    assert of.key == dataclasses.replace(of, name="x", says="y").key
    rows = [*of.rows[:-1], {**of.rows[-1], "human": "other"}]
    different = [
        dataclasses.replace(of, rows=rows),
        dataclasses.replace(of, rows=of.rows[:-1]),
        dataclasses.replace(of, held=of.rows[:1]),
        dataclasses.replace(of, texts=("a",)),
        dataclasses.replace(of, settings=settings(steps=STEPS + 1)),
    ]
    assert len({of.key, *(d.key for d in different)}) == 6


def test_operations_are_those_of_the_meter(store: Store) -> None:
    """Counted from the ledger they are what the training loop itself counts step by step."""
    from trainer.dit_stage import build

    of = arm(store, DENSE)
    rows = [dict(r) for r in of.rows]
    trainer = build(store, rows, of.settings, rows[0]["manifest"], texts=of.texts)
    total = sum(trainer.advance().flops for _ in range(STEPS))
    trainer.close()
    assert train(store, of).facts["flops"] == pytest.approx(total, rel=1e-12)


def test_samples_are_read_kept_and_made_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = train(store, arm(store, HUMAN))
    (autoencoder,) = store.read(AUTOENCODER_CHECKPOINT).to_pylist()
    wanted = [
        Wanted(prompt_id=f"p{i}", style="short", prompt="A red square.", width=w, height=32, num_frames=5, seed=i)
        for i, w in enumerate((48, 32, 48))
    ]
    reader = Reader("size 1", lambda video: {"width": video.shape[2], "mean": float(video.mean())})
    rows = sample(store, trained, autoencoder, wanted, tiny().sampling, reader)
    assert [(r["prompt_id"], r["seen"]["width"]) for r in rows] == [("p0", 48), ("p1", 32), ("p2", 48)]
    assert rows[0]["seen"]["mean"] != rows[2]["seen"]["mean"]
    assert rows[0]["strip"].startswith(b"\xff\xd8")
    monkeypatch.setattr("trainer.experiments.sampling.load_generator", lambda *a: pytest.fail("made again"))
    assert sample(store, trained, autoencoder, wanted, tiny().sampling, reader) == rows
    with pytest.raises(BaseException, match="made again"):
        sample(store, trained, autoencoder, wanted, tiny().sampling, Reader("size 2", reader.read))


def test_squares_are_the_middle_of_the_same_clips(store: Store) -> None:
    (autoencoder,) = store.read(AUTOENCODER_CHECKPOINT).to_pylist()
    manifest = store.read(MANIFEST).to_pylist()
    latents = {r["clip_id"]: r for r in store.read(LATENTS).to_pylist()}
    squares = {r["clip_id"]: r for r in square_latents(store, manifest, autoencoder, tiny().shape, 1)}
    assert squares.keys() == latents.keys()
    assert {c: r["status"] for c, r in squares.items()} == {c: r["status"] for c, r in latents.items()}
    for clip, row in squares.items():
        if row["status"] == "ok":
            assert row["pixel_height"] == row["pixel_width"]
            assert row["pixel_frames"] == latents[clip]["pixel_frames"]
            assert row["autoencoder"] == autoencoder["digest"]
    rows, _ = choose(store.read(MANIFEST), list(squares.values()))
    trained = train(store, arm(store, HUMAN, rows=rows))
    assert set(trained.ledger(store)["clip_id"].to_pylist()) <= {r["clip_id"] for r in rows}


@given(st.integers(1, 40), st.integers(1, 40))
def test_the_middle_square_leaves_as_much_on_either_side(height: int, width: int) -> None:
    pictures = np.arange(height * width).reshape(1, height, width)
    square = middle_square(pictures)
    side = min(height, width)
    assert square.shape == (1, side, side)
    top, left = divmod(int(square[0, 0, 0]), width)
    assert (top, left) == ((height - side) // 2, (width - side) // 2)


def test_an_arm_of_another_autoencoder_makes_no_videos(store: Store) -> None:
    trained = train(store, arm(store, HUMAN))
    wanted = [Wanted(prompt_id="p", style="short", prompt="x", width=32, height=32, num_frames=5, seed=9)]
    with pytest.raises(ModelError, match="latents of autoencoder"):
        sample(store, trained, {"digest": "other"}, wanted, tiny().sampling, Reader("none", lambda video: {}))


def test_the_caption_policies_are_those_of_the_paper() -> None:
    shares = {n: (p.render.short, round(1 - p.render.short - p.render.human, 2)) for n, p in caption_policies().items()}
    assert shares == {
        "human-short": (0.0, 0.0),
        "short-95": (0.95, 0.0),
        "dense-95": (0.0, 0.95),
        "blend-90": (0.0, 0.9),
        "blend-80": (0.0, 0.8),
        "blend-65": (0.0, 0.65),
        "dense-100": (0.0, 1.0),
    }


def test_steps_follow_from_operations(store: Store) -> None:
    of = arm(store, DENSE)
    few, many = (steps_for(flops, of.settings, of.rows) for flops in (1e9, 1e11))
    assert many == pytest.approx(100 * few, rel=0.06)
    assert steps_for(1.0, of.settings, of.rows) == 1


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for i in range(200):
        found = mean((rng.random(60) < 0.7).astype(float), seed=i, resamples=1000)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.7 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_an_interval_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    found = mean(values)
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)
    assert found == mean(values)


def test_pairs_take_the_prompts_own_difficulty_out() -> None:
    rng = np.random.default_rng(1)
    hard = rng.random(50)
    better = difference(hard + 0.1 + rng.normal(0, 0.01, 50), hard)
    assert better.low is not None
    assert better.high is not None
    assert 0.09 < better.low < 0.1 < better.high < 0.11
    alone = mean(hard)
    assert alone.low is not None
    assert alone.high is not None
    assert alone.high - alone.low > 5 * (better.high - better.low)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_an_interval_holds_its_mean(values: list[float]) -> None:
    found = mean(values, resamples=2000)
    assert found.low is not None
    assert found.high is not None
    assert found.value is not None
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert difference(values, values).value == 0


def test_a_ratio_is_of_sums_and_as_wide_as_a_mean_where_everything_is_there() -> None:
    values = np.random.default_rng(4).random(80)
    assert ratio(values, np.ones(80)) == dataclasses.replace(mean(values), value=pytest.approx(values.mean()))
    found = ratio([1.0, 0.0, 0.0, 0.5], [1.0, 0.0, 0.0, 1.0])
    assert (found.value, found.n) == (0.75, 4)
    assert found.low == 0.5
    assert found.high == 1.0
    assert ratio([0.0, 0.0], [0.0, 0.0]).value is None
    same = ratio_difference(values, np.ones(80), values, np.ones(80))
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="pairs are needed"):
        ratio([1.0], [1.0, 2.0])


def test_too_few_values_have_no_interval_and_pairs_must_be_pairs() -> None:
    assert mean([]).value is None
    assert (mean([0.5]).value, mean([0.5]).low) == (0.5, None)
    with pytest.raises(ValueError, match="pairs are needed, got 2 and 1"):
        difference([1.0, 2.0], [1.0])
