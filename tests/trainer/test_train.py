"""A run that is killed and started again ends with the bytes of one that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipelines.execute import run_stage
from schemas.checkpoints import DIT_CHECKPOINT
from schemas.errors import ModelError
from schemas.ledger import LEDGER
from schemas.settings import override
from schemas.store import Store
from tests.trainer import small_run
from tests.trainer.small_world import make_root
from trainer.config import DitSettings
from trainer.determinism import deterministic
from trainer.diary import Diary
from trainer.dit_stage import build, selected
from trainer.plan import Visit
from trainer.recipes import tiny
from trainer.snapshots import Snapshots
from trainer.stages import STAGES
from trainer.train import Trainer, fit

BY_NAME = {s.name: s for s in STAGES}
SETTINGS = ["dit.optimizer.steps=12", "dit.optimizer.snapshot_every_s=0", "dit.plan.packs_per_step=2"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = make_root(tmp_path_factory.mktemp("root"))
    for name in ("autoencoder", "latents"):
        run_stage(BY_NAME[name], made, tiny())
    return made


def trainer(store: Store, *changes: str) -> Trainer:
    config = override(tiny(), [*SETTINGS, *changes])
    settings = DitSettings(dit=config.dit, shape=config.shape)
    return build(store, selected(store, settings)[0], settings, "manifest0")


def train(store: Store, folder: Path, stop_at: int | None = None) -> tuple[Trainer, pa.Table]:
    made = trainer(store)
    with deterministic(1):
        return made, fit(made, Snapshots(folder, every_s=0.0 if stop_at is None or stop_at % 2 else 1e9), stop_at)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("stop", [1, 5, 6, 11])
def test_a_stopped_run_resumes_to_the_same_bytes_and_the_same_ledger(store: Store, tmp_path: Path, stop: int) -> None:
    whole, ledger = train(store, tmp_path / "whole")
    train(store, tmp_path / "part", stop_at=stop)  # odd stops leave a snapshot, even ones lose everything
    resumed, again = train(store, tmp_path / "part")
    assert same(whole.tensors(), resumed.tensors())
    assert again.equals(ledger)
    assert Diary(tmp_path / "part", 12).metrics() == Diary(tmp_path / "whole", 12).metrics()


def test_a_snapshot_cut_short_is_passed_over(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, every_s=0)
    snapshots.save(3, {"x": torch.ones(4)})
    (tmp_path / "snapshot-000000009.safetensors").write_bytes(b"half")
    into = {"x": torch.zeros(4)}
    assert snapshots.restore(into) == 3
    assert torch.equal(into["x"], torch.ones(4))


def test_a_full_disk_leaves_the_snapshot_before_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = small_run.trainer()
    snapshots = Snapshots(tmp_path, 0.0)
    made.train_step()
    snapshots.save(1, made.tensors())
    before = {k: v.clone() for k, v in made.tensors().items()}
    made.train_step()

    def half(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")  # what a full tmpfs says

    monkeypatch.setattr("trainer.snapshots.save_file", half)
    with pytest.raises(ModelError, match=r"the disk is full: .*snapshot of step 1 is intact.*run the same command"):
        snapshots.save(2, made.tensors())
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["snapshot-000000001.safetensors"]
    again = small_run.trainer()
    again.restore(snapshots)
    assert (again.step, same(again.tensors(), before)) == (1, True)
    for each in (made, again):
        each.close()


def test_of_two_snapshots_the_older_one_loads_when_the_newer_was_damaged_later(tmp_path: Path) -> None:
    whole, ledger = small_run.trainer(), []
    with deterministic(1):
        ledger = fit(whole, Snapshots(tmp_path / "whole", 1e9)).to_pylist()
        fit(small_run.trainer(), Snapshots(tmp_path / "part", 0.0), stop_at=4)
    names = sorted(p.name for p in (tmp_path / "part").glob("snapshot-*"))
    assert names == ["snapshot-000000003.safetensors", "snapshot-000000004.safetensors"]
    newest = tmp_path / "part" / names[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    resumed = small_run.trainer()
    with deterministic(1):
        assert fit(resumed, Snapshots(tmp_path / "part", 1e9)).to_pylist() == ledger
    assert same(whole.tensors(), resumed.tensors())


def test_the_average_follows_the_weights(store: Store, tmp_path: Path) -> None:
    made, _ = train(store, tmp_path)
    weights = made.model.state_dict()
    assert any(not torch.equal(v, weights[k]) for k, v in made.average.items())
    gap = max(float((v - weights[k]).abs().max()) for k, v in made.average.items())
    assert gap < 0.1


def test_the_loss_of_a_step_is_the_mean_over_its_samples_whatever_the_packs(store: Store) -> None:
    """The estimand: sum of per-sample means over the number of samples in the whole step."""
    made = trainer(store)
    rows, metrics = made.train_step()
    assert {r.pack for r in rows} == {0, 1}
    assert metrics["loss"] == pytest.approx(sum(r.loss for r in rows) / len(rows), rel=1e-12)


def test_an_epoch_of_images_trains_text_to_image_on_first_frames_and_then_goes_on_to_clips(store: Store) -> None:
    made = trainer(store, "dit.plan.image_epochs=1")
    rows = [row for _ in range(12) for row in made.train_step()[0]]
    made.close()
    grids = {c: s.grid for c, s in made.samples.rows.items()}
    assert {r.epoch for r in rows} > {0, 1}
    assert sorted(r.clip_id for r in rows if r.epoch == 0) == sorted(c for c in grids if made.plan.knows(c))
    for r in rows:
        grid = grids[r.clip_id]
        assert r.tokens == grid.height * grid.width * (1 if r.epoch == 0 else grid.frames)
        assert r.epoch > 0 or r.task == "text_to_image"
    drawn, tokens = made._drawn([Visit(max(grids, key=lambda c: grids[c].frames), 0, 0, image=True)], 0)
    whole = made.samples.tokens(drawn[0].visit.clip_id)
    assert torch.equal(tokens[0], whole[: len(tokens[0])])
    assert len(tokens[0]) < len(whole)


def test_with_a_final_shift_later_steps_see_less_noise_in_one_go_or_in_two(tmp_path: Path) -> None:
    fall = ("flow.shift=12", "flow.shift_tokens=16", "flow.final_shift=1", "optimizer.steps=20")
    with deterministic(1):
        whole = small_run.trainer(*fall)
        rows = fit(whole, Snapshots(tmp_path / "whole", 1e9)).to_pylist()
        fit(small_run.trainer(*fall), Snapshots(tmp_path / "part", 0.0), stop_at=9)
        resumed = small_run.trainer(*fall)
        assert fit(resumed, Snapshots(tmp_path / "part", 1e9)).to_pylist() == rows
    assert same(whole.tensors(), resumed.tensors())
    first, last = (np.mean([r["t"] for r in rows if r["step"] in part]) for part in (range(5), range(15, 20)))
    assert first > 0.8
    assert last < 0.65


CHILD = """
import sys
from pipelines.execute import run_stage
from schemas.settings import override
from schemas.store import Store
from trainer.recipes import tiny
from trainer.snapshots import Snapshots
from trainer.stages import DIT
run_stage(DIT, Store(sys.argv[1]), override(tiny(), sys.argv[2].split()))
"""


def test_kill_9_and_rerun_gives_byte_identical_weights(store: Store, tmp_path: Path) -> None:
    settings = "dit.optimizer.steps=40 dit.optimizer.snapshot_every_s=0"
    config = override(tiny(), settings.split())
    run_stage(BY_NAME["dit"], store, config)
    calm = _weights(store)
    ledger = store.committed(LEDGER).content  # type: ignore[union-attr]
    other = make_root(tmp_path)
    for name in ("autoencoder", "latents"):
        run_stage(BY_NAME[name], other, tiny())
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), settings], cwd=Path(__file__).parents[2])
    work = tmp_path / "work" / "dit"
    deadline = time.monotonic() + 120
    while not list(work.glob("*/snapshot-0000000[3-9]*")) and time.monotonic() < deadline:
        assert child.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert list(work.glob("*/snapshot-*"))
    assert other.committed(DIT_CHECKPOINT) is None
    run_stage(BY_NAME["dit"], other, config)
    assert _weights(other) == calm
    assert other.committed(LEDGER).content == ledger  # type: ignore[union-attr]
    assert not list(work.glob("*"))


def _weights(store: Store) -> tuple[bytes, bytes]:
    (row,) = store.read(DIT_CHECKPOINT).to_pylist()
    files: Any = [store.read_bytes(row["path"], f) for f in ("model.safetensors", "last.safetensors")]
    assert load_file(store.at(row["path"], "model.safetensors"))
    return files[0], files[1]


def test_the_stage_trains_in_two_processes_as_in_one(store: Store, tmp_path: Path) -> None:
    """The whole way: launched by the stage, trained by children, published by the parent."""
    settings = ["dit.plan.packs_per_step=2", "dit.plan.budget=64", "dit.optimizer.snapshot_every_s=0"]
    run_stage(BY_NAME["dit"], store, override(tiny(), settings))
    one = store.read(LEDGER)
    other = make_root(tmp_path)
    for name in ("autoencoder", "latents"):
        run_stage(BY_NAME[name], other, tiny())
    result = run_stage(BY_NAME["dit"], other, override(tiny(), [*settings, "launch.workers=2"]))
    two = other.read(LEDGER)
    assert two.drop_columns(["loss"]).equals(one.drop_columns(["loss"]))
    for a, b in zip(two["loss"].to_pylist(), one["loss"].to_pylist()):
        assert a == pytest.approx(b, rel=1e-5)
    assert result.metrics["tokens_per_s"] > 0
    assert not list((tmp_path / "work" / "dit").glob("*"))
