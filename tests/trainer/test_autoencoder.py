"""The autoencoder: causal, normalised, repeatable, and what it does to pictures on the way."""

import copy
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from schemas.errors import ModelError
from tests.trainer.small_world import pictures
from trainer.autoencoder import whole
from trainer.autoencoder.adversary import Adversary
from trainer.autoencoder.config import AutoencoderConfig
from trainer.autoencoder.model import build, compression, decode, encode, load, psnr, to_pictures, to_tensor
from trainer.autoencoder.pictures import Unfit, prepare, resize
from trainer.autoencoder.quality import measure, ssim
from trainer.autoencoder.start import near_linear
from trainer.autoencoder.train import rate, set_statistics, train, weights
from trainer.checkpoint import Snapshots
from trainer.determinism import deterministic
from trainer.recipes import RECIPES, tiny
from trainer.shapes import Compression, ShapeConfig

CONFIG = tiny().autoencoder


def clips() -> dict[str, np.ndarray]:
    return {f"c{i}": np.ascontiguousarray(pictures(i)[:5, :32, :32]) for i in range(4)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with deterministic(1):
        return train(CONFIG, clips(), Snapshots(tmp_path_factory.mktemp("run"), 1e9))[0]


@pytest.mark.parametrize("recipe", ["demo", "tiny"])
def test_the_first_latent_depends_on_the_first_frame_alone(recipe: str) -> None:
    config = RECIPES[recipe]().autoencoder
    torch.manual_seed(0)
    model = build(config)
    near_linear(model, config.z_dim)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn_like(p))  # no symmetry of the start may be what hides a leak
    video = np.random.default_rng(0).integers(0, 256, (9, 32, 48, 3), dtype=np.uint8)
    other = video.copy()
    other[1:] = 255 - other[1:]
    a, b, image = encode(model, video), encode(model, other), encode(model, video[:1])
    assert torch.equal(a[:, 0], b[:, 0])
    assert torch.allclose(a[:, 0], image[:, 0], rtol=0, atol=1e-5)  # a picture skips taps that see zeros
    assert not torch.allclose(a[:, 1], b[:, 1])
    later = video.copy()
    later[5:] = 0
    assert torch.equal(encode(model, later)[:, :2], a[:, :2])
    assert a.shape == (config.z_dim, 3, 32 // config.space, 48 // config.space)
    assert decode(model, a[None])[0].shape == video.shape


SIZES = {
    "demo": {},
    "wan21": {"pixel_patch": 1, "dim_mult": (1, 2, 2, 2), "base_dim": 8, "num_res_blocks": 2},
    "wan22": {"is_residual": True, "dim_mult": (1, 2, 2), "base_dim": 8},
}


@pytest.mark.parametrize("frames", [1, 5, 9, 13])
@pytest.mark.parametrize("size", SIZES)
def test_in_chunks_and_whole_are_the_same(size: str, frames: int) -> None:
    torch.manual_seed(0)
    model = build(dataclasses.replace(AutoencoderConfig(), **SIZES[size]))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    video = np.random.default_rng(0).integers(0, 256, (frames, 32, 48, 3), dtype=np.uint8)
    tensor = to_tensor(video)[None]
    with torch.no_grad():
        chunked = model.encode(tensor).latent_dist.parameters
        assert torch.allclose(whole.moments(model, tensor), chunked, rtol=0, atol=1e-5)
        latent = chunked.chunk(2, dim=1)[0]
        back = model.decode(latent).sample
        assert torch.allclose(whole.pictures(model, latent).clamp(-1, 1), back, rtol=0, atol=2e-5)
    a, b = (encode(model, video, chunked=c) for c in (True, False))
    assert torch.allclose(a, b, rtol=0, atol=1e-5)
    two = [decode(model, a[None], chunked=c)[0].astype(int) for c in (True, False)]
    assert np.abs(two[0] - two[1]).max() <= 1  # one grey level, where rounding falls


def test_an_untrained_start_shows_a_still_video_as_it_shows_its_picture() -> None:
    config = dataclasses.replace(CONFIG, is_residual=False)
    torch.manual_seed(0)
    model = build(config)
    near_linear(model, config.z_dim)
    still = np.repeat(pictures(0)[:1, :32, :32], 9, axis=0)
    back = decode(model, encode(model, still)[None])[0]
    assert max(int(np.abs(back[0].astype(int) - f).max()) for f in back) <= 1


def test_a_start_from_components_shows_clips_before_any_step() -> None:
    from trainer.autoencoder import principal

    seen = [pictures(i)[:9, :32, :32] for i in range(8)]
    torch.manual_seed(0)
    model = build(AutoencoderConfig())
    near_linear(model, model.config.z_dim)
    random = measure(model, seen[:2])
    assert principal.fits(model)
    principal.from_components(model, seen)
    weights = [p.detach().clone() for p in model.parameters()]
    found = measure(model, seen[:2])
    assert random is not None
    assert found is not None
    assert found.psnr > max(24.0, random.psnr + 8)
    assert found.psnr_first_frame > 26
    torch.manual_seed(0)
    again = build(AutoencoderConfig())
    near_linear(again, again.config.z_dim)
    principal.from_components(again, seen)
    assert all(torch.equal(a, b) for a, b in zip(weights, again.parameters()))


@pytest.mark.parametrize(
    "other", [{"is_residual": True, "dim_mult": (1, 2, 2)}, {"dim_mult": (1, 2, 2, 4)}, {"base_dim": 8}]
)
def test_other_shapes_start_near_linear(other: dict[str, Any]) -> None:
    from trainer.autoencoder import principal

    assert not principal.fits(build(AutoencoderConfig(**other)))


def test_latents_of_the_training_clips_are_normalised(trained: Any) -> None:
    flat = torch.cat([encode(trained, c).flatten(1) for c in clips().values()], dim=1)
    assert torch.allclose(flat.mean(1), torch.zeros(CONFIG.z_dim), atol=1e-4)
    assert torch.allclose(flat.std(1), torch.ones(CONFIG.z_dim), atol=1e-3)


def test_channels_can_be_given_the_variance_that_they_weigh_in_pixels(trained: Any) -> None:
    model, shown = copy.deepcopy(trained), list(clips().values())
    before = decode(model, encode(model, shown[0])[None])[0]
    set_statistics(model, shown)
    weighed = weights(model, shown)
    set_statistics(model, shown, balance=0.5)
    latents = torch.cat([encode(model, c).flatten(1) for c in shown], dim=1)
    variance = latents.var(1)
    assert float(variance.mean()) == pytest.approx(1.0, abs=0.02)
    assert torch.allclose(variance / variance[0], (weighed / weighed[0]).sqrt(), rtol=0.02)
    assert np.abs(decode(model, encode(model, shown[0])[None])[0].astype(int) - before).max() <= 1


def test_the_statistics_travel_with_the_checkpoint(trained: Any, tmp_path: Path) -> None:
    trained.save_pretrained(tmp_path, safe_serialization=True)
    again = load(str(tmp_path))
    clip = clips()["c1"]
    assert torch.equal(encode(trained, clip), encode(again, clip))
    assert compression(again, 2) == CONFIG.compression(2)
    with pytest.raises(ModelError, match="does not load as AutoencoderKLWan"):
        load(str(tmp_path / "nothing"))


def test_fine_tuning_starts_from_the_named_weights_and_measures_its_own_statistics(
    trained: Any, tmp_path: Path
) -> None:
    trained.save_pretrained(tmp_path / "first", safe_serialization=True)
    config = dataclasses.replace(CONFIG, start_from=str(tmp_path / "first"), steps=0, base_dim=64)
    with deterministic(1):
        same, _ = train(config, clips(), Snapshots(tmp_path / "none", 1e9))
        assert all(torch.equal(a, b) for a, b in zip(trained.state_dict().values(), same.state_dict().values()))
        assert same.config.latents_std == pytest.approx(trained.config.latents_std)
        config = dataclasses.replace(config, steps=2, optimizer="adamw", learning_rate=1e-3)
        further, _ = train(config, clips(), Snapshots(tmp_path / "two", 1e9))
    assert not torch.equal(further.quant_conv.weight, trained.quant_conv.weight)


def test_the_judge_tells_noise_from_pictures_and_can_be_deceived() -> None:
    torch.manual_seed(0)
    judge = Adversary(3e-3)
    real = torch.stack([to_tensor(c) for c in clips().values()])
    fake = torch.rand_like(real) * 2 - 1
    losses = [judge.learn(real, fake) for _ in range(30)]
    assert losses[-1] < 0.2 < 1.5 < losses[0]
    fake.requires_grad_(True)
    before = judge.deceive(fake)
    before.backward()
    assert fake.grad is not None
    assert judge.deceive(fake - 0.5 * fake.grad.sign()) < before


def test_a_killed_run_with_a_judge_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, adversarial_weight=0.1, adversarial_from=0.25)
    with deterministic(1):
        whole_run, loss = train(config, clips(), Snapshots(tmp_path / "whole", 1e9))
        plain, _ = train(CONFIG, clips(), Snapshots(tmp_path / "plain", 1e9))
        with pytest.raises(KeyboardInterrupt):
            train(config, clips(), Killed(tmp_path / "part", 0.0))
        resumed, again = train(config, clips(), Snapshots(tmp_path / "part", 0.0))
    assert all(torch.equal(a, b) for a, b in zip(whole_run.state_dict().values(), resumed.state_dict().values()))
    assert loss == again
    assert not torch.equal(whole_run.quant_conv.weight, plain.quant_conv.weight)


def test_features_of_a_clip_tower_as_a_loss(tmp_path: Path) -> None:
    from trainer.autoencoder.perceptual import Perceptual

    shape = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 1, "layers": 1}
    described = {"embed_dim": 16, "vision_cfg": shape, "text_cfg": text}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": described, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    tower = open_clip.CLIP(**described)
    save_file({k: v.contiguous() for k, v in tower.state_dict().items()}, tmp_path / "open_clip_model.safetensors")
    perceptual = Perceptual(str(tmp_path))
    video = torch.stack([to_tensor(c) for c in clips().values()])[:, :, :2]
    other = (video + 0.3 * torch.randn_like(video)).requires_grad_(True)
    assert float(perceptual.distance(video, video)) == 0
    far = perceptual.distance(video, other)
    far.backward()
    assert 0 < float(far.detach()) < 4
    assert other.grad is not None
    assert other.grad.abs().sum() > 0
    config = dataclasses.replace(CONFIG, perceptual=str(tmp_path), steps=1)
    seen: list[dict[str, float]] = []
    train(config, clips(), Snapshots(tmp_path / "run", 1e9), lambda step, numbers: seen.append(dict(numbers)))
    assert seen[0]["perceptual"] > 0
    with pytest.raises(ModelError, match="does not load with open_clip"):
        Perceptual(str(tmp_path / "nothing"))


def test_quality_of_a_perfect_and_of_a_damaged_copy(trained: Any) -> None:
    video = pictures(0)[:5]
    rng = np.random.default_rng(0)
    noisy = np.clip(video + rng.normal(0, 20, video.shape), 0, 255).astype(np.uint8)
    assert ssim(video, video) == pytest.approx(1.0)
    assert 0 < ssim(video, noisy) < 0.9
    quality = measure(trained, list(clips().values())[:3])
    assert quality is not None
    assert quality.psnr == pytest.approx(
        np.mean([psnr(c, decode(trained, encode(trained, c)[None])[0]) for c in list(clips().values())[:3]])
    )
    assert Image.open(io.BytesIO(quality.sheet)).size[0] > 100
    assert measure(trained, []) is None


class Killed(Snapshots):
    """Dies after the second snapshot."""

    def save(self, step: int, tensors: Any) -> None:
        super().save(step, tensors)
        if step == 2:
            raise KeyboardInterrupt


def test_training_that_is_killed_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    with deterministic(1):
        whole, _ = train(CONFIG, clips(), Snapshots(tmp_path / "whole", 1e9))
        with pytest.raises(KeyboardInterrupt):
            train(CONFIG, clips(), Killed(tmp_path / "part", 0.0))
        assert Snapshots(tmp_path / "part", 0.0).latest()[0] == 2
        resumed, _ = train(CONFIG, clips(), Snapshots(tmp_path / "part", 0.0))
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))
    assert whole.config.latents_std == resumed.config.latents_std


def test_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no clip file could be read"):
        train(CONFIG, {}, Snapshots(tmp_path, 1e9))


def test_pictures_survive_the_way_in_and_out() -> None:
    video = np.random.default_rng(1).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    assert np.array_equal(to_pictures(to_tensor(video)), video)
    assert to_tensor(video).shape == (3, 5, 6, 7)
    assert psnr(video, video) > 100
    assert psnr(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)) == pytest.approx(0.0)


def test_trimming_is_even_and_scaling_keeps_the_aspect_ratio() -> None:
    plan = prepare(20, 8.0, 64, 44, ShapeConfig(max_area=None, train_fps=None), Compression())
    assert (plan.fit.width, plan.fit.height, plan.fit.trimmed_height) == (64, 32, 12)
    video = np.zeros((2, 44, 64, 3), np.uint8)
    video[:, 6:38] = 200
    assert (resize(video, plan.fit) == 200).all()
    with pytest.raises(ValueError, match="64x40"):
        resize(video[:, :40], plan.fit)
    with pytest.raises(Unfit, match="do not fit"):
        prepare(20, 8.0, 640, 10, ShapeConfig(), Compression())
    with pytest.raises(Unfit, match="needs frames"):
        prepare(0, 8.0, 64, 64, ShapeConfig(), Compression())


def test_the_learning_rate_warms_up_and_comes_down() -> None:
    config = AutoencoderConfig(steps=100, warmup_steps=10)
    rates = [rate(s, config) for s in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9]
    assert rates[-1] < 0.03


@pytest.mark.parametrize(
    "wrong",
    [
        {"dim_mult": (1, 2)},
        {"frames": (4,)},
        {"held_out": 0.9},
        {"pixel_patch": 3},
        {"steps": -1},
        {"optimizer": "sgd"},
        {"kl_weight": -1.0},
        {"pretrained": "a", "start_from": "b"},
    ],
)
def test_a_wrong_config_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|needs|needed|one of"):
        AutoencoderConfig(**wrong)
