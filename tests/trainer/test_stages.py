"""The trainer's stages from clip files to samples, on the tiny recipe."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from orchestration import cli
from pipelines.execute import run_stage
from pipelines.video.read import read_frames
from schemas.checkpoints import AUTOENCODER_CHECKPOINT, DIT_CHECKPOINT
from schemas.errors import ConfigError, ModelError
from schemas.latents import LATENTS
from schemas.ledger import LEDGER
from schemas.samples import SAMPLES
from schemas.settings import override, recipe
from schemas.store import Store
from tests.trainer.small_world import make_root
from trainer import credentials, dit_stage
from trainer.autoencoder.config import AutoencoderConfig
from trainer.autoencoder.model import build
from trainer.autoencoder.stage import loaded as loaded_autoencoder
from trainer.on_demand import sample_one
from trainer.prompt_policy import PromptPolicy, Refused
from trainer.recipes import RECIPES, tiny
from trainer.stages import DIT, SAMPLES_STAGE, STAGES
from trainer.wishes import Wish


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[str, Any]]:
    store = make_root(tmp_path_factory.mktemp("root"))
    return store, {s.name: run_stage(s, store, tiny()) for s in STAGES}


def rows(store: Store, table: Any) -> list[dict[str, Any]]:
    return store.read(table).to_pylist()


def test_every_manifest_row_has_a_latent_row_and_a_missing_file_says_so(root: tuple[Store, Any]) -> None:
    latents = {r["clip_id"]: r for r in rows(root[0], LATENTS)}
    assert len(latents) == 7
    assert {c: r["status"] for c, r in latents.items() if r["status"] != "ok"} == {"clip5": "skipped"}
    assert latents["clip5"]["reason"] == "clip file blobs/clips/clip5.mp4 is missing"
    assert latents["clip6"]["latent_frames"] == 1
    assert all(r["tokens"] <= tiny().shape.max_tokens for r in latents.values())
    assert all(r["pixel_height"] + r["trimmed_height"] == round(r["scale"] * h) for r, h in [(latents["clip0"], 48)])


def test_the_ledger_holds_every_sample_of_every_step_and_every_row_that_was_trained(root: tuple[Store, Any]) -> None:
    ledger = rows(root[0], LEDGER)
    trained = {r["clip_id"] for r in rows(root[0], LATENTS) if r["status"] == "ok"}
    assert {r["clip_id"] for r in ledger} == trained
    assert {r["step"] for r in ledger} == set(range(tiny().dit.optimizer.steps))
    for step in range(tiny().dit.optimizer.steps):
        mine = [r for r in ledger if r["step"] == step]
        assert [r["position"] for r in sorted(mine, key=lambda r: r["position"])] == list(range(len(mine)))
        assert sum(r["tokens"] for r in mine) <= tiny().dit.plan.budget
    assert all(0 <= r["t"] <= 1 and np.isfinite(r["loss"]) and r["manifest"] == "manifest0" for r in ledger)


def test_checkpoints_say_what_they_were_trained_on(root: tuple[Store, Any]) -> None:
    store, results = root
    (dit,) = rows(store, DIT_CHECKPOINT)
    (autoencoder,) = rows(store, AUTOENCODER_CHECKPOINT)
    assert (dit["trained_on"], dit["knows"], dit["steps"]) == ("manifest0", "synthetic", 6)
    assert autoencoder["knows"] == "synthetic"
    assert store.exists(dit["path"], "tokenizer.json")
    card = json.loads(store.read_bytes(dit["path"], "card.json"))
    assert card["manifest"] == "manifest0"
    assert card["rows"] == 6
    assert results["dit"].metrics["rows_left_out"] == 1
    assert len(store.read_bytes(dit["path"], "metrics.jsonl").splitlines()) == 6


def test_a_prompt_that_cannot_be_made_is_a_row_with_the_reason(root: tuple[Store, Any]) -> None:
    store, _ = root
    samples = {r["prompt_id"]: r for r in rows(store, SAMPLES)}
    assert samples["p4"]["status"] == "failed"
    assert "width must be a multiple of" in samples["p4"]["reason"]
    for name, size in [("p0", (32, 32)), ("p1", (32, 48)), ("p2", (48, 32))]:
        frames, _ = read_frames(store.fetch(samples[name]["path"]))
        assert frames.shape == (5, *size, 3)


def test_the_contact_sheet_is_a_small_jpeg(root: tuple[Store, Any]) -> None:
    jpeg = root[0].read_bytes(root[1]["samples"].pictures["contact_sheet"])
    assert len(jpeg) <= 120_000
    assert Image.open(io.BytesIO(jpeg)).format == "JPEG"


def test_the_autoencoder_shows_what_came_back_of_held_out_clips(root: tuple[Store, Any]) -> None:
    store, results = root
    (row,) = rows(store, AUTOENCODER_CHECKPOINT)
    measured = json.loads(row["metrics"])
    assert {"psnr_held_out", "ssim_held_out", "psnr_held_out_pictures"} <= set(measured)
    jpeg = store.read_bytes(results["autoencoder"].pictures["reconstructions"])
    assert len(jpeg) <= 120_000
    assert Image.open(io.BytesIO(jpeg)).format == "JPEG"
    assert store.read_bytes(row["path"], "reconstructions.jpg") == jpeg
    curve = list(Path(store.at("logs", "autoencoder")).glob("*/metrics.jsonl"))
    assert len(curve[0].read_text().splitlines()) == tiny().autoencoder.steps


def test_a_pretrained_autoencoder_of_another_size_and_one_that_is_fine_tuned(tmp_path: Path) -> None:
    other = AutoencoderConfig(pixel_patch=1, dim_mult=(1, 1, 1), base_dim=4, z_dim=4)
    torch.manual_seed(0)
    model = build(other)
    model.register_to_config(latents_mean=[0.5] * 4, latents_std=[2.0] * 4)
    model.save_pretrained(tmp_path / "named" / "vae", safe_serialization=True)
    named = str(tmp_path / "named")
    for number, settings in enumerate([f"autoencoder.pretrained={named}", f"autoencoder.start_from={named}"]):
        store = make_root(tmp_path / f"root{number}", clips=3)
        config = recipe("tiny", RECIPES, [settings, "autoencoder.steps=2"])
        for stage in STAGES[:2]:
            run_stage(stage, store, config)
        (row,) = rows(store, AUTOENCODER_CHECKPOINT)
        assert row["knows"] == ("synthetic" if number else "general")
        kept = loaded_autoencoder(store, row)
        assert (kept.config.latents_mean == [0.5] * 4) == (number == 0)
        assert torch.equal(kept.quant_conv.weight, model.quant_conv.weight) == (number == 0)
        latents = rows(store, LATENTS)
        assert {r["status"] for r in latents} == {"ok"}
        assert all(r["latent_height"] * 4 == r["pixel_height"] and r["channels"] == 4 for r in latents)


def test_a_second_run_computes_nothing(root: tuple[Store, Any]) -> None:
    assert not any(run_stage(s, root[0], tiny()).computed for s in STAGES)


def test_the_same_input_gives_the_same_rows_in_another_root(root: tuple[Store, Any], tmp_path: Path) -> None:
    store, _ = root
    other = make_root(tmp_path)
    for stage in STAGES:
        run_stage(stage, other, tiny())
        for table in stage.writes:
            assert other.committed(table).content == store.committed(table).content, table.name  # type: ignore[union-attr]


def test_samples_say_what_made_them_and_a_single_frame_is_a_picture(
    root: tuple[Store, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    store, _ = root
    (dit,) = rows(store, DIT_CHECKPOINT)
    row = next(r for r in rows(store, SAMPLES) if r["prompt_id"] == "p0")
    assert cli.main(["credentials", store.fetch(row["path"]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["problems"]) == ("Valid", [])
    made = found["generation"]
    assert (made["checkpoint"], made["manifest"], made["seed"]) == (dit["digest"], "manifest0", row["seed"])
    assert made["prompt"] == row["prompt"]
    path = sample_one(store, tiny().sampling, tiny().shape, Wish(prompt="a square", width=48, height=32, frames=1)).path
    assert path.endswith(".png")
    with Image.open(store.fetch(path)) as picture:
        assert picture.size == (48, 32)
    assert credentials.read(store.fetch(path))["generation"]["prompt"] == "a square"


def test_a_refused_prompt_is_a_row_with_the_rule_and_the_others_are_made(root: tuple[Store, Any]) -> None:
    store, _ = root
    word = next(r for r in rows(store, SAMPLES) if r["prompt_id"] == "p0")["prompt"].split()[1]
    policy = PromptPolicy(deny=(f"no-{word}s={word}",))
    strict = dataclasses.replace(tiny(), sampling=dataclasses.replace(tiny().sampling, policy=policy))
    with pytest.raises(Refused, match=f"rule `no-{word}s`"):
        sample_one(store, strict.sampling, strict.shape, Wish(prompt=f"a {word}"))
    with pytest.raises(Refused, match=f"rule `no-{word}s`"):
        sample_one(store, strict.sampling, strict.shape, Wish(prompt="a thing", prompt_used=f"a large {word}"))
    before = {r["prompt_id"]: r for r in rows(store, SAMPLES)}
    run_stage(SAMPLES_STAGE, store, strict)
    after = {r["prompt_id"]: r for r in rows(store, SAMPLES)}
    run_stage(SAMPLES_STAGE, store, tiny())  # as the other tests found it
    assert after.keys() == before.keys()
    for name, row in after.items():
        if word in row["prompt"].lower():
            assert (row["status"], row["path"]) == ("failed", "")
            assert f"refused by rule `no-{word}s`" in row["reason"]
        else:
            assert row["status"] == before[name]["status"]


def test_a_device_that_is_not_there_stops_the_stage_and_the_training(
    root: tuple[Store, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = root
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = store.committed(SAMPLES)
    for stage, key in ((SAMPLES_STAGE, "sampling.device"), (DIT, "dit.optimizer.device")):
        with pytest.raises(ConfigError, match=f"trainer.{key}=cuda, and torch .* sees no CUDA device here"):
            run_stage(stage, store, override(tiny(), [f"{key}=cuda"]))
    assert store.committed(SAMPLES) == before


def test_a_damaged_checkpoint_is_named(root: tuple[Store, Any], tmp_path: Path) -> None:
    store, _ = root
    (row,) = rows(store, DIT_CHECKPOINT)
    (autoencoder,) = rows(store, AUTOENCODER_CHECKPOINT)
    broken = Store(tmp_path).create()
    for source, name in ((row, dit_stage.WEIGHTS), (autoencoder, "diffusion_pytorch_model.safetensors")):
        for file in ("config.json", name):
            data = store.read_bytes(source["path"], file)
            broken.write_bytes(data[:-1] if file == name else data, source["path"], file)
    with pytest.raises(ModelError, match="is not what its digest says"):
        dit_stage.loaded(broken, row)
    with pytest.raises(ModelError, match="is not what its digest says"):
        loaded_autoencoder(broken, autoencoder)
    with pytest.raises(ModelError, match="does not read"):
        dit_stage.loaded(broken, {**row, "path": "checkpoints"})


def test_nothing_to_train_on_is_refused_with_the_reasons(root: tuple[Store, Any]) -> None:
    store, _ = root
    config = dataclasses.replace(tiny(), shape=dataclasses.replace(tiny().shape, min_side=2000))
    latents = next(s for s in STAGES if s.name == "latents")
    dit = next(s for s in STAGES if s.name == "dit")
    result = run_stage(latents, store, config)
    assert result.metrics["rows_ok"] == 0
    assert "do not fit" in rows(store, LATENTS)[0]["reason"]
    try:
        with pytest.raises(ModelError, match=r"nothing to train on: .*latent skipped: .*do not fit"):
            run_stage(dit, store, config)
    finally:
        run_stage(latents, store, tiny())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_and_takes_settings(name: str) -> None:
    config = recipe(name, RECIPES, ["dit.optimizer.steps=3", "autoencoder.dim_mult=1,2,2", "shape.train_fps=none"])
    assert config.dit.optimizer.steps == 3
    assert config.autoencoder.dim_mult == (1, 2, 2)
    assert config.shape.train_fps is None
    with pytest.raises(ConfigError, match="unknown task `dance`"):
        recipe(name, RECIPES, ["dit.draw.tasks=dance:1"])


def test_training_can_begin_with_the_weights_of_a_checkpoint(root: tuple[Store, Any]) -> None:
    store = root[0]
    (row,) = rows(store, DIT_CHECKPOINT)
    settings = DIT.settings(tiny())

    def begun(**changed: Any) -> Any:
        dit = dataclasses.replace(settings.dit, **{"start_from": row["path"], **changed})
        picked = dit_stage.pick(store, dataclasses.replace(settings, dit=dit))
        return dit_stage.build(store, picked.rows, dataclasses.replace(settings, dit=dit), "manifest0")

    other_words = begun(flow=dataclasses.replace(settings.dit.flow, shift=5.0))
    (before, _), after = dit_stage.loaded(store, row), other_words.model
    assert all(
        torch.equal(a, b) for a, b in zip(before.state_dict().values(), after.state_dict().values(), strict=True)
    )
    assert all(torch.equal(other_words.average[k], v) for k, v in after.state_dict().items())
    for wrong, message in (
        ({"start_from": "checkpoints/dit/nothing"}, "no dit checkpoint at"),
        ({"model": dataclasses.replace(settings.dit.model, mlp_ratio=2.0)}, "of another model"),
    ):
        with pytest.raises(ModelError, match=message):
            begun(**wrong)
    picked = dit_stage.pick(store, settings)
    others = [{**r, "autoencoder": "other"} for r in picked.rows]
    dit = dataclasses.replace(settings.dit, start_from=row["path"])
    with pytest.raises(ModelError, match="these are of other"):
        dit_stage.build(store, others, dataclasses.replace(settings, dit=dit), "manifest0")
