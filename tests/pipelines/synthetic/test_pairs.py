"""Pairs and prompts: native shapes, captions that say the truth, and combinations that training never shows."""

import collections
import types
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.execute import run_stage
from pipelines.synthetic.pairs import PAIRS_STAGE, SIZES, PairsConfig
from pipelines.synthetic.prompts import PROMPTS_STAGE, PromptsConfig
from pipelines.synthetic.world import BACKGROUNDS, COLORS, HELD_OUT, WorldConfig
from schemas.captions import SYNTHETIC_PAIRS
from schemas.language import parse, render_dense
from schemas.samples import PROMPTS
from schemas.store import Store

CONFIG = types.SimpleNamespace(
    synthetic=types.SimpleNamespace(
        world=WorldConfig(), pairs=PairsConfig(count=230, held_out=40), prompts=PromptsConfig()
    )
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("pairs")).create()
    run_stage(PAIRS_STAGE, store, CONFIG)
    run_stage(PROMPTS_STAGE, store, CONFIG)
    return store


def test_pairs_come_in_five_native_shapes_with_pictures_of_that_size(store: Store) -> None:
    rows = store.read(SYNTHETIC_PAIRS).to_pylist()
    assert collections.Counter(r["split"] for r in rows) == {"train": 230, "held_out": 40}
    assert {(r["width"], r["height"]) for r in rows} == set(SIZES)
    for row in rows[::20]:
        pictures = [cv2.imdecode(np.frombuffer(j, np.uint8), cv2.IMREAD_COLOR) for j in row["frames"]]
        assert {p.shape for p in pictures} == {(row["height"], row["width"], 3)}
        assert len(pictures) == len(row["times_s"]) == 8
        assert sorted(row["times_s"]) == row["times_s"]


def test_training_never_shows_a_held_out_combination_and_half_of_the_held_out_pairs_do(store: Store) -> None:
    unseen = collections.Counter()
    for row in store.read(SYNTHETIC_PAIRS).to_pylist():
        main = row["fields"]["subjects"][0]
        unseen[row["split"]] += (main["color"], main["shape"], main["motion"]) in HELD_OUT
    assert unseen["train"] == 0
    assert unseen["held_out"] == 20


def test_a_dense_caption_parses_to_the_truth(store: Store) -> None:
    for row in store.read(SYNTHETIC_PAIRS).to_pylist():
        read = parse(row["dense"])
        assert read.background == row["fields"]["background"]
        assert [s.motion for s in read.subjects] == [s["motion"] for s in row["fields"]["subjects"]]


def test_pairs_are_the_same_again(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path).create()
    run_stage(PAIRS_STAGE, other, CONFIG)
    assert other.read(SYNTHETIC_PAIRS).equals(store.read(SYNTHETIC_PAIRS))


def test_prompts_are_balanced_native_and_known(store: Store) -> None:
    rows = store.read(PROMPTS).to_pylist()
    assert len(rows) == 64
    assert len({(r["width"], r["height"]) for r in rows}) == 3
    assert all(r["width"] % 16 == r["height"] % 16 == 0 and r["num_frames"] % 4 == 1 for r in rows)
    colors = collections.Counter(r["fields"]["subjects"][0]["color"] for r in rows)
    backgrounds = collections.Counter(r["fields"]["background"] for r in rows)
    assert set(colors) == set(COLORS)
    assert set(backgrounds) == set(BACKGROUNDS)
    assert max(colors.values()) - min(colors.values()) <= 1
    assert max(backgrounds.values()) - min(backgrounds.values()) <= 2
    for row in rows:
        fields = parse(row["prompt"])
        assert row["prompt"] in {render_dense(fields, v) for v in range(4)}
        assert fields.camera != "static" or fields.subjects[0].motion != "still"
