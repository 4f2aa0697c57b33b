"""The validation grid compares like with like, and what is not trained on says why."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from orchestration import cli
from pipelines.execute import run_stage
from schemas.errors import DamagedTable, ModelError
from schemas.latents import LATENTS
from schemas.ledger import LEDGER, SKIPPED
from schemas.manifest import MANIFEST
from schemas.settings import override
from schemas.store import Store
from schemas.validation import VALIDATION
from tests.trainer.small_run import GRIDS, InMemory, config, trainer
from tests.trainer.small_world import make_root
from trainer.config import DitSettings
from trainer.determinism import deterministic
from trainer.dit_stage import pick
from trainer.dry_run import forecast
from trainer.recipes import tiny
from trainer.snapshots import Snapshots
from trainer.stages import DIT, STAGES
from trainer.train import fit
from trainer.validate import HELD_OUT, ValidationConfig, chosen, is_held_out, validate

LOOK = ValidationConfig(every=2, clips=6, levels=(0.2, 0.8))


def test_every_shape_is_there_before_any_is_there_twice() -> None:
    clips = InMemory().rows
    six = chosen(clips, 6)
    assert Counter(clips[c].grid for c in six) == Counter(GRIDS)
    assert chosen(dict(reversed(clips.items())), 6) == six


def test_a_look_changes_nothing_and_gives_the_same_numbers_again() -> None:
    made = trainer()
    with deterministic(1):
        made.advance()
        before = {k: v.clone() for k, v in made.tensors().items()}
        one, two = validate(made, LOOK), validate(made, LOOK)
        made.close()
    assert one == two
    assert all(torch.equal(v, before[k]) for k, v in made.tensors().items())
    assert {(r.t, r.task) for r in one} == {(t, k) for t in LOOK.levels for k in LOOK.tasks}
    stills = {r.clip_id for r in one if r.frames == 1}
    assert stills
    assert not any(r.task == "image_to_video" for r in one if r.clip_id in stills)
    assert {r.aspect for r in one} == {"wide", "square", "tall"}


def test_training_is_the_same_with_and_without_looking_and_a_stopped_run_looks_again(tmp_path: Path) -> None:
    def run(name: str, stop_at: int | None = None, validation: ValidationConfig | None = LOOK) -> tuple[object, object]:
        made = trainer()
        with deterministic(1):
            ledger = fit(made, Snapshots(tmp_path / name, 0.0), stop_at, validation=validation)
        looked = sorted((tmp_path / name).glob("validation-*"))
        return ledger, [VALIDATION.conform(pq.read_table(p)) for p in looked]

    plain, _ = run("plain", validation=None)
    whole, looks = run("whole")
    run("part", stop_at=3)
    resumed, again = run("part")
    assert plain == whole == resumed
    assert looks == again
    assert len(looks) == config().optimizer.steps // LOOK.every  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = make_root(tmp_path_factory.mktemp("root"))
    for name in ("autoencoder", "latents"):
        run_stage(next(s for s in STAGES if s.name == name), made, tiny())
    return made


def test_every_manifest_row_is_trained_on_held_out_or_left_out_with_a_reason(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clip file is missing, a latent holds NaN, another does not fit a pack, one is held out."""
    rows = {r["clip_id"]: r for r in store.read(LATENTS).to_pylist()}
    share = next(s / 100 for s in range(100) if sum(is_held_out(c, s / 100) for c in rows) == 1)
    held = next(c for c in rows if is_held_out(c, share))
    ok = sorted((c for c, r in rows.items() if r["status"] == "ok" and c != held), key=lambda c: rows[c]["tokens"])
    longest, poisoned = ok[-1], ok[0]
    budget = rows[longest]["tokens"] - 1
    over = {c for c in ok if rows[c]["tokens"] > budget}
    path = store.at(rows[poisoned]["shard"])
    tensors = load_file(path)
    tensors[poisoned][0, 0, 0, 0] = float("nan")
    save_file(tensors, path)
    shape = ["shape.max_tokens=8", f"dit.plan.budget={budget}"]  # as if the budget had been lowered after `latents`
    looks = ["dit.validation.every=3", f"dit.validation.holdout={share}", "dit.watch.every=3", "dit.watch.steps=2"]
    wanted = override(tiny(), [*shape, *looks])
    settings = DitSettings(dit=wanted.dit, shape=wanted.shape)
    picked = pick(store, settings)
    found = forecast(picked.rows, picked.skipped, settings)
    assert "latent holds numbers that are not finite" in found.skipped[poisoned]
    assert all(f"do not fit a pack of {budget}" in found.skipped[c] for c in over)
    assert found.skipped[held] == HELD_OUT
    assert found.skipped["clip5"].startswith("latent skipped: clip file")
    result = run_stage(DIT, store, wanted)
    sheets = sorted(p.name for p in Path(store.path).glob("logs/dit/*/pictures/*.jpg"))
    assert sheets == ["step-000000003.jpg", "step-000000006.jpg"]
    assert store.read_bytes(result.pictures["fixed_prompts"]).startswith(b"\xff\xd8")
    trained = set(store.read(LEDGER)["clip_id"].to_pylist())
    left = {r["clip_id"]: r["reason"] for r in store.read(SKIPPED).to_pylist()}
    manifest = set(store.read(MANIFEST)["clip_id"].to_pylist())
    assert trained <= manifest
    assert trained | set(left) == manifest
    assert not trained & set(left)
    assert {c: left[c] for c in found.skipped} == found.skipped
    looked = store.read(VALIDATION).to_pylist()
    assert {(r["clip_id"], r["held_out"]) for r in looked} == {(held, True)}
    assert {r["step"] for r in looked} == {3, 6}
    assert cli.main(["explain", "step", "1", "--root", store.path, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["gradient_norm"] > 0
    assert {s["clip_id"] for s in said["samples"]} <= trained


def test_a_latent_shard_that_lost_a_clip_is_named(store: Store) -> None:
    rows = [r for r in store.read(LATENTS).to_pylist() if r["status"] == "ok"]
    path = store.at(rows[0]["shard"])
    before = Path(path).read_bytes()
    save_file({k: v for k, v in load_file(path).items() if k != rows[0]["clip_id"]}, path)
    try:
        with pytest.raises(ModelError, match=f"hold no `{rows[0]['clip_id']}`; delete the file"):
            pick(store, DitSettings(dit=tiny().dit, shape=tiny().shape))
    finally:
        Path(path).write_bytes(before)


def test_a_manifest_of_another_schema_is_refused_and_the_remedy_named(store: Store) -> None:
    older = dataclasses.replace(MANIFEST)
    table = store.read(MANIFEST).drop_columns(["licence"])
    with pytest.raises(DamagedTable, match=r"`manifest`: missing columns \['licence'\].*another version.*stage"):
        older.conform(table)
