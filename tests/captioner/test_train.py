"""Training: what is learned from, draws that depend on the step alone, and killed runs that end in the same weights."""

import dataclasses
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from captioner.recipes import tiny
from captioner.stages import CAPTIONER_MODEL
from captioner.train.checkpoint import load_checkpoint, save_checkpoint
from captioner.train.config import TrainConfig
from captioner.train.data import by_shape, draw, example, named_fields, slot_values
from captioner.train.glimpse import patches, place_loss
from captioner.train.model import Captioner
from captioner.train.tokenizer import CONTROL, END_ID, SHORT_ID, decode, encode, spell, train_tokenizer
from captioner.train.tower import flow, positions
from captioner.train.train import field_accuracy, rate_at, train
from pipelines.execute import run_stage
from pipelines.run_log import read_lines
from schemas.captions import PAIRS, Fields, Subject
from schemas.checkpoints import CAPTIONER_CHECKPOINT
from schemas.errors import ModelError
from schemas.store import Store
from tests.captioner.worlds import pairs

CONFIG = tiny().train


class Memory:
    """A snapshot in memory."""

    def __init__(self, data: bytes | None = None) -> None:
        self.data = data

    def load(self) -> bytes | None:
        return self.data

    def save(self, data: bytes) -> None:
        self.data = data


def test_any_text_comes_back_from_the_tokenizer_and_control_words_stay_words() -> None:
    tokenizer = train_tokenizer([p.dense for p in pairs()], 300)
    for text in ("A red square is moving left.", "caf\u00e9 \u65e5\u672c <end> <short>", " two  spaces"):
        ids = encode(tokenizer, text)
        assert not set(ids) & set(range(len(CONTROL)))
        assert decode(tokenizer, [*ids, END_ID, 7]) == (text, True)
    assert decode(tokenizer, [*encode(tokenizer, "cut"), SHORT_ID]) == ("cut<short>", False)


def test_field_values_come_from_the_pairs() -> None:
    records = [p.fields for p in pairs()]
    assert slot_values(records) == {
        "color.0": ["blue", "green", "red"],
        "motion.0": ["moving left", "moving right"],
        "ends.0": ["moving left", "moving right"],
    }
    two = Fields(subjects=[Subject(shape="a"), Subject(shape="b", color="red")], events=["x", "y"])
    assert named_fields(two)["color.1"] == "red"
    assert named_fields(two)["event.1"] == "y"


def test_a_batch_has_one_shape_and_depends_on_seed_and_step_alone() -> None:
    tokenizer = train_tokenizer([p.dense for p in pairs()], 300)
    slots = slot_values([p.fields for p in pairs()])
    ready = [example(p, CONFIG.frames, tokenizer, slots) for p in pairs()]
    groups = by_shape(ready)
    assert len(groups) == 2

    def batch(seed: int, step: int) -> tuple[torch.Tensor, ...]:
        return draw(ready, groups, seed=seed, step=step, batch=4, short_share=0.5, spoken=3, looked_at=2)

    again = [batch(3, step) for step in (5, 4)]
    for a, b in zip(batch(3, 5), again[0]):
        assert torch.equal(a, b)
    assert {batch(3, s)[0].shape[2:4] for s in range(20)} == {e.frames.shape[1:3] for e in ready}
    assert not all(torch.equal(a, b) for a, b in zip(batch(3, 5), batch(4, 5)) if a.shape == b.shape)


@pytest.mark.parametrize(("axis", "shift"), [(0, 1), (0, -1), (1, 1), (1, -1)])
def test_flow_measures_which_way_a_texture_moves(axis: int, shift: int) -> None:
    rng = np.random.default_rng(0)
    picture = torch.from_numpy(rng.normal(size=(1, 1, 12, 12)).astype(np.float32))
    picture = torch.nn.functional.interpolate(picture, size=(64, 64), mode="bicubic").clamp(-1, 1)[0, 0]
    frames = torch.stack([torch.roll(picture, shift * i, dims=1 - axis) for i in range(4)])
    moved = flow(frames.expand(1, 3, 4, 64, 64))[0, :, :, 6:-6, 6:-6].mean(dim=(1, 2, 3))
    assert moved[axis] * shift == pytest.approx(0.5, abs=0.12)  # one pixel is half a pixel at half size
    assert abs(float(moved[1 - axis])) < 0.12


def test_flat_and_still_pictures_do_not_move() -> None:
    assert flow(torch.full((1, 3, 4, 16, 16), 0.3)).abs().max() == 0
    noise = torch.randn(1, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.012
    assert flow(noise).abs().mean() < 0.1


def test_positions_tell_every_cell_of_any_grid_apart() -> None:
    for grid in ((10, 16), (18, 8), (12, 12)):
        placed = positions(*grid, 96)
        assert placed.shape == (math.prod(grid), 96)
        assert torch.cdist(placed, placed).fill_diagonal_(9).min() > 0.1


def test_places_are_likely_where_they_are_looked_for_and_unknown_ones_cost_nothing() -> None:
    log_where = torch.full((1, 3, 2, 12), -20.0)
    log_where[0, 0, :, 5] = 0.0  # second row, second column of 3 x 4
    places = torch.full((1, 3, 2, 2), -1.0)
    assert place_loss(log_where, places, 3, 4) == 0
    places[0, 0] = torch.tensor([1.5 / 4, 1.5 / 3])
    assert place_loss(log_where, places, 3, 4) == pytest.approx(0.0, abs=1e-4)
    places[0, 0] = torch.tensor([2.0 / 4, 1.5 / 3])  # halfway to the next column
    assert place_loss(log_where, places, 3, 4) == pytest.approx(10.0, abs=1e-3)
    places[0, 1] = torch.tensor([1.2, 0.5])  # out of sight
    assert place_loss(log_where, places, 3, 4) == pytest.approx(10.0, abs=1e-3)


def test_a_patch_is_centred_on_its_place_in_a_picture_of_any_shape() -> None:
    picture = torch.zeros(1, 1, 1, 32, 64)
    picture[..., 20, 50] = 1.0
    at = torch.tensor([(50.5 - 32) / 16, (20.5 - 16) / 16]).view(1, 1, 1, 2)
    cut = patches(picture, at, side=9, reach=4 / 16)
    assert cut.shape == (1, 1, 1, 1, 9, 9)
    assert int(cut.flatten().argmax()) == 4 * 9 + 4
    assert float(cut.max()) == pytest.approx(1.0, abs=1e-4)


def test_a_pair_without_places_is_learned_from_as_well() -> None:
    tokenizer = train_tokenizer([p.dense for p in pairs()], 300)
    known = dataclasses.replace(pairs()[0], places=(tuple(n / 16 for n in range(16)),))
    slots = slot_values([p.fields for p in pairs()])
    unknown, made = (example(p, CONFIG.frames, tokenizer, slots).places for p in (pairs()[0], known))
    assert unknown.shape == made.shape == (3, CONFIG.frames.num_frames, 2)
    assert (unknown == -1).all()
    assert (made[1:] == -1).all()
    assert made[0].tolist() == [[n / 16, (n + 1) / 16] for n in range(2, 16, 4)]  # every other frame of 8


def test_a_fresh_model_is_no_worse_than_guessing() -> None:
    torch.manual_seed(0)
    tokenizer = train_tokenizer([p.dense for p in pairs()], 300)
    slots = slot_values([p.fields for p in pairs()])
    ready = [example(p, CONFIG.frames, tokenizer, slots) for p in pairs()]
    net = Captioner(CONFIG.model, slots, len(tokenizer), spell(tokenizer, [v for vs in slots.values() for v in vs]))
    _, parts = net.loss(*draw(ready, by_shape(ready), seed=0, step=0, batch=4, short_share=0.0, spoken=4, looked_at=2))
    assert float(parts["caption"].detach()) < math.log(len(tokenizer)) + 1


def test_the_cached_greedy_text_is_the_models_own_best_next_token() -> None:
    torch.manual_seed(0)
    net = Captioner(CONFIG.model, {"camera": ["x", "y"]}, 300, {"x": [7], "y": [8, 9]}).eval()
    frames = torch.randint(0, 255, (2, 4, 24, 24, 3), dtype=torch.uint8)
    rows = net.write(frames, SHORT_ID, max_tokens=6)
    with torch.no_grad():
        prefix = net.see(frames)[1]
        for b, row in enumerate(rows):
            text = torch.tensor([[SHORT_ID, *row]])
            embeds = torch.cat([prefix[b : b + 1], net.lm.get_input_embeddings()(text)], dim=1)
            best = net.lm(inputs_embeds=embeds).logits[0, prefix.shape[1] :].argmax(dim=-1)
            said = row[: row.index(END_ID) + 1] if END_ID in row else row
            assert [int(i) for i in best[: len(said)]] == said


def test_a_snapshot_that_does_not_read_is_as_good_as_none() -> None:
    config = dataclasses.replace(CONFIG, steps=2)
    fresh, torn = (train(pairs(), config, Memory(data)).losses for data in (None, b"no snapshot"))
    assert fresh == torn


def test_the_rate_warms_up_and_ends_near_zero() -> None:
    config = TrainConfig(steps=100, warmup_steps=10, learning_rate=1e-3)
    assert rate_at(0, config) == pytest.approx(1e-4)
    assert max(rate_at(s, config) for s in range(100)) <= 1e-3
    assert rate_at(99, config) < 1e-6


def test_it_learns_to_name_what_it_sees() -> None:
    config = dataclasses.replace(
        CONFIG,
        steps=90,
        batch_size=8,
        warmup_steps=10,
        learning_rate=4e-3,
        model=dataclasses.replace(CONFIG.model, width=32, stem=(8, 16)),
    )
    trained = train(pairs(24, 6), config, Memory())
    assert np.mean(trained.losses[-10:]) < 0.7 * trained.losses[0]
    tokenizer, slots = trained.tokenizer, trained.net.slots
    unseen = [example(p, config.frames, tokenizer, slots) for p in pairs(0, 6)]
    assert field_accuracy(trained.net, unseen) >= 0.9  # colour and direction; guessing gives 0.42
    assert trained.left_out == 0


def test_pairs_that_cannot_be_used_are_counted_and_none_at_all_is_an_error() -> None:
    usable = pairs(4, 0)
    torn = dataclasses.replace(usable[0], pair_id="torn", frames=[b"no picture"] * 8)
    long = dataclasses.replace(usable[1], pair_id="long", dense="word " * 400)
    config = dataclasses.replace(CONFIG, steps=1)
    assert train([*usable, torn, long], config, Memory()).left_out == 2
    with pytest.raises(ModelError, match="nothing to learn from"):
        train([], config, Memory())
    with pytest.raises(ModelError, match="none of 1"):
        train([torn], config, Memory())


def test_early_stopping_keeps_the_best_weights_and_is_the_same_after_a_kill() -> None:
    config = dataclasses.replace(CONFIG, steps=80, look_every=2, patience=2, learning_rate=0.01, warmup_steps=0)
    other = [dataclasses.replace(p, short="zq " * 9, dense="xj " * 30) for p in pairs(0, 3)]
    learn = [*pairs(12, 0), *other]  # what is held out says what no training pair says, so it soon gets worse
    seen: list[dict[str, float]] = []
    whole = train(learn, config, Memory(), curve=lambda known: Kept(seen))  # type: ignore[arg-type,return-value]
    assert len(whole.losses) < 80
    looked = {int(line["step"]): line["held_out_caption"] for line in seen if "held_out_caption" in line}
    assert whole.best_step == min(looked, key=lambda step: looked[step])
    assert max(looked) == whole.best_step + 4, "it ends two looks after the best one"
    memory, known = Memory(), []

    def killed(done: int, note: str) -> None:
        if done == whole.best_step + 1:
            raise KeyboardInterrupt

    config = dataclasses.replace(config, snapshot_s=0.0)
    with pytest.raises(KeyboardInterrupt):
        train(learn, config, memory, on_step=killed)
    again = train(learn, config, memory, curve=lambda done: known.append(done) or Kept([]))  # type: ignore[arg-type,func-returns-value,return-value]
    assert known == [whole.best_step + 1]
    assert again.losses == whole.losses
    assert all(torch.equal(a, b) for a, b in zip(again.net.state_dict().values(), whole.net.state_dict().values()))


class Kept:
    """A run log that keeps its lines in a list."""

    def __init__(self, lines: list[dict[str, float]]) -> None:
        self.lines = lines

    def __enter__(self) -> "Kept":
        return self

    def __exit__(self, *error: object) -> None: ...

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        self.lines.append({"step": step, **numbers})


def test_two_fine_tunings_give_two_writers_wherever_the_run_is_killed(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, steps=4, fine_tune=True, fine_tune_steps=3, snapshot_s=0.0)
    whole = train(pairs(), config, Memory())
    assert len(whole.losses) == 10
    assert whole.short_net is not None
    short, dense = whole.short_net.state_dict(), whole.net.state_dict()
    assert any(not torch.equal(a, b) for a, b in zip(short.values(), dense.values()))
    base = train(pairs(), dataclasses.replace(config, fine_tune=False), Memory())
    assert whole.losses[:4] == base.losses
    for stop_at in (2, 4, 6, 9):
        memory = Memory()

        def killed(done: int, note: str, stop_at: int = stop_at) -> None:
            if done == stop_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(pairs(), config, memory, on_step=killed)
        again = train(pairs(), config, memory)
        assert again.losses == whole.losses
        assert again.short_net is not None
        assert all(torch.equal(a, b) for a, b in zip(again.short_net.state_dict().values(), short.values()))
        assert all(torch.equal(a, b) for a, b in zip(again.net.state_dict().values(), dense.values()))
    _, path = save_checkpoint(Store(tmp_path).create(), whole.net, whole.tokenizer, config.frames, {}, whole.short_net)
    loaded = load_checkpoint(str(tmp_path / path))
    assert loaded.short_net is not None
    assert all(torch.equal(a, b) for a, b in zip(loaded.writer("short").state_dict().values(), short.values()))
    assert all(torch.equal(a, b) for a, b in zip(loaded.writer("dense").state_dict().values(), dense.values()))
    (tmp_path / path / "short.safetensors").unlink()
    with pytest.raises(ModelError, match="train it again"):
        load_checkpoint(str(tmp_path / path))


_KILLED = """
import dataclasses, os, signal, sys
from captioner.recipes import tiny
from captioner.stages import CAPTIONER_MODEL
from captioner.train import train as loop
from pipelines.execute import Progress, run_stage
from schemas.store import Store

real = Progress.advance
def advance(self, count=1, note=""):
    real(self, count, note)
    if self.done == 3:
        os.kill(os.getpid(), signal.SIGKILL)
Progress.advance = advance
config = tiny()
config = dataclasses.replace(config, train=dataclasses.replace(config.train, snapshot_s=0.0))
run_stage(CAPTIONER_MODEL, Store(sys.argv[1]), config)
"""


def test_a_run_killed_with_signal_9_ends_in_the_same_weights(tmp_path: Path) -> None:
    config = tiny()
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, snapshot_s=0.0))
    digests, losses = [], []
    for name in ("undisturbed", "killed"):
        store = Store(tmp_path / name).create()
        store.commit(PAIRS, PAIRS.from_rows(pairs()))
        if name == "killed":
            environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
            done = subprocess.run([sys.executable, "-c", _KILLED, store.root], env=environment, capture_output=True)
            assert done.returncode == -signal.SIGKILL, done.stderr.decode()
            assert store.fs.glob(store.at("work", "captioner_model", "*.pt"))
            assert store.committed(CAPTIONER_CHECKPOINT) is None
        result = run_stage(CAPTIONER_MODEL, store, config)
        assert result.computed
        digests.append(store.read(CAPTIONER_CHECKPOINT)["digest"].to_pylist())
        losses.append(result.metrics["loss_first"])
    assert digests[0] == digests[1]
    assert losses[0] == losses[1]


def test_a_checkpoint_names_fields_and_writes_as_the_model_that_was_saved(tmp_path: Path) -> None:
    learn = [
        dataclasses.replace(p, fields=dataclasses.replace(p.fields, background=f"b{n % 2}"))
        for n, p in enumerate(pairs())
    ]
    trained = train(learn, CONFIG, Memory())
    names = list(trained.net.slots)
    assert names != sorted(names)  # else a checkpoint that sorts them would pass
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (2, 4, 16, 32, 3)).astype(np.uint8))
    name, path = save_checkpoint(Store(tmp_path).create(), trained.net, trained.tokenizer, CONFIG.frames, {})
    loaded = load_checkpoint(str(tmp_path / path))
    assert (loaded.digest, list(loaded.net.slots), loaded.net.slots) == (name, names, trained.net.slots)
    with torch.no_grad():
        said, again = (net.field_logits(net.see(frames)[0]) for net in (trained.net, loaded.net))
    assert all(torch.equal(a, b) for a, b in zip(said, again))
    assert trained.net.write(frames, SHORT_ID, max_tokens=9) == loaded.net.write(frames, SHORT_ID, max_tokens=9)


def test_the_checkpoint_reads_back_and_says_what_it_knows(tmp_path: Path) -> None:
    store = Store(tmp_path).create()
    store.commit(PAIRS, PAIRS.from_rows(pairs()))
    run_stage(CAPTIONER_MODEL, store, tiny())
    row = store.read(CAPTIONER_CHECKPOINT).to_pylist()[0]
    assert (row["kind"], row["knows"], row["steps"]) == ("captioner", "synthetic", CONFIG.steps)
    folder = Path(store.fetch(row["path"]))
    loaded = load_checkpoint(str(folder))
    assert loaded.digest == row["digest"] == folder.name
    assert loaded.frames == CONFIG.frames
    card = (folder / "README.md").read_text()
    assert "knows | synthetic" in card
    (trained_on,) = store.read(CAPTIONER_CHECKPOINT)["trained_on"].to_pylist()
    assert f"trained on pairs | {trained_on}" in card
    (curve,) = store.fs.glob(store.at("logs", "captioner_model", "*"))
    steps = [line["step"] for line in read_lines(f"{curve}/metrics.jsonl")]
    assert steps == list(range(1, CONFIG.steps + 1))
    assert len(list(Path(curve).glob("events.out.tfevents.*"))) == 1
    assert not run_stage(CAPTIONER_MODEL, store, tiny()).computed

    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(ModelError, match="train it again"):
        load_checkpoint(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="does not load"):
        load_checkpoint(str(folder))
