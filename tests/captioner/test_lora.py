"""LoRA on real model classes with random weights: it learns, is saved, comes back, captions, and can be traced."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from captioner.backends.base import TRAINED, Clip, Decoding, VlmConfig
from captioner.backends.transformers_vlm import open_vlm
from captioner.config import CaptionerConfig
from captioner.frames import FrameSpec
from captioner.prompt import prompt
from captioner.stages import CAPTIONER_MODEL, CAPTIONS_STAGE
from captioner.train.config import LoraConfig
from captioner.train.lora import adapted, draw, language_layers, tune
from captioner.train.merge import export_merged
from pipelines.execute import run_stage
from schemas.captions import CAPTIONS
from schemas.checkpoints import CAPTIONER_CHECKPOINT
from schemas.errors import ConfigError, ModelError
from tests.captioner.tiny_vlm import save_tiny_smolvlm, save_tiny_vlm
from tests.captioner.worlds import footage, pairs

# peft asks transformers for a property that transformers has renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

CLASSES: dict[str, Callable[[Path], str]] = {"qwen3_vl": save_tiny_vlm, "smolvlm": save_tiny_smolvlm}
FRAMES = FrameSpec(num_frames=4, area=0, multiple=1)
LORA = LoraConfig(rank=8, alpha=16, steps=12, batch_size=4, learning_rate=3e-2, warmup_steps=2, threads=1)


class Box:
    """A snapshot in memory."""

    def __init__(self) -> None:
        self.data: bytes | None = None

    def load(self) -> bytes | None:
        return self.data

    def save(self, data: bytes) -> None:
        self.data = data


@pytest.fixture(scope="module", params=CLASSES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return CLASSES[request.param](tmp_path_factory.mktemp(request.param))


def config(model: str) -> CaptionerConfig:
    return CaptionerConfig(
        backend="transformers_vlm",
        method="lora",
        vlm=VlmConfig(model=model, adapter=TRAINED, device="cpu"),
        frames=FRAMES,
        lora=LORA,
        retries=0,
        decoding=Decoding(short_tokens=6, dense_tokens=6),
    )


def test_it_learns_is_saved_and_captions_under_its_own_name(model: str, tmp_path: Path) -> None:
    store = footage(tmp_path)
    trained = run_stage(CAPTIONER_MODEL, store, config(model))
    assert trained.metrics["loss_last"] < 0.8 * trained.metrics["loss_first"]
    assert trained.metrics["held_out_loss_last"] < trained.metrics["held_out_loss_first"]
    (row,) = store.read(CAPTIONER_CHECKPOINT).to_pylist()
    assert row["kind"] == "captioner_adapter"
    assert not any(p.suffix in (".bin", ".pt", ".pkl") for p in (tmp_path / row["path"]).iterdir())

    run_stage(CAPTIONS_STAGE, store, config(model), batch="b")
    rows = store.read(CAPTIONS, batch="b").to_pylist()
    spoken = [r for r in rows if r["clip_id"] not in ("blind", "torn")]
    assert len(spoken) == 6
    base = open_vlm(VlmConfig(model=model, device="cpu")).model
    assert {r["model"] for r in spoken} == {f"{base}+{row['digest']}"}
    again = run_stage(CAPTIONS_STAGE, store, config(model), batch="b")
    assert not again.computed


def test_the_saved_adapter_is_the_one_that_was_trained(model: str, tmp_path: Path) -> None:
    """Loaded from disk it answers as it did in memory, and not as the base does."""
    store = footage(tmp_path)
    run_stage(CAPTIONER_MODEL, store, config(model))
    (row,) = store.read(CAPTIONER_CHECKPOINT).to_pylist()
    tuned = tune(pairs(), VlmConfig(model=model, device="cpu"), FRAMES, LORA, Box(), config(model).prompt_version)
    loaded = open_vlm(VlmConfig(model=model, device="cpu", adapter=str(tmp_path / row["path"])))
    base = open_vlm(VlmConfig(model=model, device="cpu"))
    clip = Clip(np.zeros((4, 24, 48, 3), np.uint8), (0.0, 0.5, 1.0, 1.5))
    inputs = base.inputs([clip], prompt("short"))
    export_merged(VlmConfig(model=model, device="cpu", adapter=str(tmp_path / row["path"])), str(tmp_path / "merged"))
    merged = open_vlm(VlmConfig(model=str(tmp_path / "merged"), device="cpu"))
    with torch.inference_mode():
        there, here, before = (net(**inputs).logits for net in (loaded.net, tuned.net.eval(), base.net))
        assert torch.allclose(merged.net(**merged.inputs([clip], prompt("short"))).logits, there, atol=1e-4)
    assert torch.allclose(there, here, atol=1e-5)
    assert (there - before).abs().max() > 0.1


def test_only_adapters_of_the_language_model_are_trained(model: str) -> None:
    base = open_vlm(VlmConfig(model=model, device="cpu"))
    layers = language_layers(base.net)
    assert layers
    assert not [n for n in layers if "vis" in n or "lm_head" in n]
    net = adapted(base.net, LORA)
    trained = [n for n, p in net.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in n for n in trained)


def test_a_stopped_run_ends_in_the_same_bytes(tmp_path: Path) -> None:
    model = save_tiny_vlm(tmp_path / "vlm")
    vlm, version = VlmConfig(model=model, device="cpu"), CaptionerConfig().prompt_version
    short = dataclasses.replace(LORA, steps=6, snapshot_s=0.0, dropout=0.1)
    whole = tune(pairs(6, 0), vlm, FRAMES, short, Box(), version)
    box = Box()

    class Stopped(Exception):
        """As a kill would."""

    def stop(done: int, note: str) -> None:
        if done == 3:
            raise Stopped

    with pytest.raises(Stopped):
        tune(pairs(6, 0), vlm, FRAMES, short, box, version, stop)
    seen: list[str] = []
    resumed = tune(pairs(6, 0), vlm, FRAMES, short, box, version, lambda done, note: seen.append(note))
    assert seen[0] == "resumed at step 3"
    one, two = ({n: p.detach() for n, p in t.net.named_parameters() if p.requires_grad} for t in (whole, resumed))
    assert all(torch.equal(one[n], two[n]) for n in one)
    assert whole.losses == resumed.losses


def test_early_stopping_keeps_the_best_adapter_and_is_the_same_after_a_stop(tmp_path: Path) -> None:
    vlm, version = VlmConfig(model=save_tiny_vlm(tmp_path / "vlm"), device="cpu"), CaptionerConfig().prompt_version
    other = [dataclasses.replace(p, short="zq zq", dense="xj xj xj") for p in pairs(0, 2)]
    learn = [*pairs(6, 0), *other]  # what is held out says what no training pair says, so it soon gets worse
    watched = dataclasses.replace(LORA, steps=60, look_every=2, patience=2, snapshot_s=0.0)
    whole = tune(learn, vlm, FRAMES, watched, Box(), version)
    assert whole.best_step is not None
    assert len(whole.losses) == whole.best_step + 4 < 60
    box, at = Box(), whole.best_step + 1

    def stop(done: int, note: str) -> None:
        if done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(learn, vlm, FRAMES, watched, box, version, stop)
    again = tune(learn, vlm, FRAMES, watched, box, version)
    assert again.losses == whole.losses
    assert again.held_out_last == whole.held_out_last


def test_draws_depend_on_the_step_alone() -> None:
    assert draw(12, LORA, 5) == draw(12, LORA, 5)
    assert draw(12, LORA, 5) != draw(12, LORA, 6)


def test_wrong_checkpoints_are_refused_with_the_remedy(tmp_path: Path) -> None:
    store = footage(tmp_path / "root")
    model = save_tiny_vlm(tmp_path / "vlm")
    few = dataclasses.replace(config(model), lora=dataclasses.replace(LORA, steps=1))
    run_stage(CAPTIONER_MODEL, store, few)
    ours = CaptionerConfig(backend="recaptioner")
    with pytest.raises(ConfigError, match=r"captioner train --set captioner\.method=scratch"):
        run_stage(CAPTIONS_STAGE, store, ours, batch="b")
    (row,) = store.read(CAPTIONER_CHECKPOINT).to_pylist()
    empty = tmp_path / "empty"
    shutil.copytree(tmp_path / "root" / row["path"], empty)
    (empty / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError):
        open_vlm(VlmConfig(model=model, device="cpu", adapter=str(empty)))


def test_no_pairs_is_a_clear_error(tmp_path: Path) -> None:
    vlm = VlmConfig(model=save_tiny_vlm(tmp_path), device="cpu")
    with pytest.raises(ModelError, match="nothing to learn from"):
        tune([], vlm, FRAMES, LORA, Box(), CaptionerConfig().prompt_version)
