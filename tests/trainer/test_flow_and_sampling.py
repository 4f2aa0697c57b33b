"""Rectified flow and the solver, on numbers whose answer is known."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.test_model import CHANNELS, TEXT, model
from trainer import randomness
from trainer.autoencoder.model import build, encode
from trainer.config import SamplingConfig
from trainer.flow import (
    FlowConfig,
    draw_t,
    euler_step,
    guided,
    interpolate,
    shift_of,
    shifted,
    solver_times,
    target,
)
from trainer.model.dit import DiT, ModelConfig, Pack
from trainer.model.patch import patchify
from trainer.model.text import train_tokenizer
from trainer.recipes import tiny
from trainer.sample import Generator, Given, Request, first_picture
from trainer.shapes import Compression, PixelShape
from trainer.tasks.base import Chain, Layout


@given(st.floats(0, 1), st.floats(1, 12))
def test_the_shift_keeps_the_ends_and_moves_towards_noise(t: float, a: float) -> None:
    assert shifted(0.0, a) == 0
    assert shifted(1.0, a) == 1
    assert t - 1e-12 <= float(shifted(t, a)) <= 1
    assert float(shifted(t, 1.0)) == pytest.approx(t)


def test_the_shift_is_a_and_not_mu() -> None:
    assert float(shifted(0.5, 3.0)) == pytest.approx(0.75)  # a t / (1 + (a - 1) t)


def test_the_shift_grows_with_the_root_of_the_tokens() -> None:
    config = FlowConfig(shift=2.0, shift_tokens=100, max_shift=5.0)
    assert shift_of(400, config) == pytest.approx(4.0)
    assert shift_of(10_000, config) == 5.0
    assert shift_of(1, config) == 1.0


def test_the_shift_of_training_falls_by_the_same_factor_each_step_and_sampling_keeps_it() -> None:
    config = FlowConfig(shift=9.0, final_shift=4.0, shift_tokens=100)
    assert [config.at(done).shift for done in (0.0, 0.5, 1.0, 1.5)] == pytest.approx([9.0, 6.0, 4.0, 4.0])
    assert shift_of(100, config) == 9.0
    steady = FlowConfig(shift=9.0)
    assert steady.at(0.5) is steady


@pytest.mark.parametrize("final", [0.5, 9.5])
def test_a_final_shift_that_does_not_lie_between_one_and_the_first_is_refused(final: float) -> None:
    with pytest.raises(ValueError, match="1 <= final_shift <= shift is needed"):
        FlowConfig(shift=9.0, final_shift=final)


def test_noise_levels_are_logit_normal_and_float32() -> None:
    draws = np.array([draw_t(randomness.generator(0, "x", i, "t"), 64, FlowConfig()) for i in range(3000)])
    logit = np.log(draws / (1 - draws))
    assert logit.mean() == pytest.approx(0, abs=0.07)
    assert logit.std() == pytest.approx(1, abs=0.06)
    assert all(float(np.float32(t)) == t for t in draws[:50])


def test_the_true_velocity_leads_from_noise_to_data_in_one_step() -> None:
    x0, eps = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(euler_step(eps, target(x0, eps), 1.0, 0.0), x0, atol=1e-6)
    half = interpolate(x0, eps, torch.tensor(0.5))
    assert torch.allclose(euler_step(half, target(x0, eps), 0.5, 0.0), x0, atol=1e-6)


def test_guidance_of_one_is_the_model_itself() -> None:
    a, b = torch.ones(3), torch.zeros(3)
    assert torch.equal(guided(a, b, 1.0), a)
    assert torch.equal(guided(a, b, 3.0), 3 * a)


def test_solver_times_fall_from_one_to_zero() -> None:
    times = solver_times(10, 256, FlowConfig(shift=3.0, shift_tokens=64))
    assert times[0] == 1
    assert times[-1] == 0
    assert (np.diff(times) < 0).all()


def test_randomness_is_a_function_of_its_four_names() -> None:
    one = randomness.noise(1, "a", 2, (4, 3))
    assert np.array_equal(one, randomness.noise(1, "a", 2, (4, 3)))
    others = [(2, "a", 2, "noise"), (1, "b", 2, "noise"), (1, "a", 3, "noise"), (1, "a", 2, "t")]
    assert all(not np.array_equal(one, randomness.noise(s, n, v, (4, 3), p)) for s, n, v, p in others)
    assert randomness.uniform(0, "x", 0, "y") == 0.8965196866513961  # the same on any machine


@pytest.fixture(scope="module")
def generator() -> Generator:
    config = tiny().autoencoder
    torch.manual_seed(0)
    autoencoder = build(config).eval()
    torch.manual_seed(0)
    net = DiT(ModelConfig(size="nano", text=TEXT), config.z_dim, train_tokenizer(["a red square"], TEXT))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return Generator(net.eval(), autoencoder, FlowConfig(), Compression(space=config.space, patch=1), 4.0)


def test_given_tokens_are_untouched_by_sampling(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    packs: list[Pack] = []
    import trainer.sample as sampling

    def keep(autoencoder: object, latents: torch.Tensor) -> list[np.ndarray]:
        seen.append(latents)
        return [np.zeros((1 + 4 * (x.shape[1] - 1), 32, 48, 3), np.uint8) for x in latents]

    forward = DiT.forward

    def watch(self: DiT, pack: Pack) -> torch.Tensor:
        packs.append(pack)
        return forward(self, pack)

    monkeypatch.setattr(sampling, "decode", keep)
    monkeypatch.setattr(DiT, "forward", watch)
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    requests = [Request("a red square", 0, first_picture(image, 2)), Request("a red square", 1)]
    generator.videos(requests, PixelShape(5, 32, 48), SamplingConfig(steps=4))
    first = encode(generator.autoencoder, image[None])
    assert torch.equal(seen[0][0][:, :1], first)
    assert not torch.equal(seen[0][1][:, :1], first)
    assert all(torch.equal(p.x[p.given], patchify(first, 1).repeat(2, 1)) for p in packs)
    assert all(p.given.sum() == 2 * 6 for p in packs)  # with text and without, 6 tokens each


def test_a_prompt_gives_the_same_video_in_any_company(generator: Generator) -> None:
    config, shape = SamplingConfig(steps=3), PixelShape(5, 32, 32)
    requests = [Request("a red square", 7), Request("a square", 8), Request("red", 9)]
    together = generator.videos(requests, shape, config)
    alone = [generator.videos([r], shape, config)[0] for r in requests]
    for a, b in zip(together, alone):
        assert np.abs(a.astype(int) - b).max() <= 1
    assert not np.array_equal(together[0], together[1])


def test_all_that_sampling_computes_with_lies_where_the_models_do(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On `meta`, which refuses operands from elsewhere as a GPU does; it has no values, so nothing is decoded."""
    import trainer.sample as sampling

    there = dataclasses.replace(generator, dit=copy.deepcopy(generator.dit).to("meta"))
    decoded: list[torch.Tensor] = []

    def keep(autoencoder: object, latents: torch.Tensor) -> list[np.ndarray]:
        decoded.append(latents)
        return [np.zeros((1 + 4 * (x.shape[1] - 1), 32, 48, 3), np.uint8) for x in latents]

    monkeypatch.setattr(sampling, "decode", keep)
    image = np.zeros((32, 48, 3), np.uint8)
    source = np.zeros((5, 32, 48, 3), np.uint8)
    begun = Given("video_to_video", Layout((Chain(0, 2),)), source=source, strength=0.5)
    for what in (None, first_picture(image, 2), begun):
        there.videos([Request("a red square", 0, what)], PixelShape(5, 32, 48), SamplingConfig(steps=2))
    assert {x.device.type for x in decoded if x.shape[2] == 2} == {"meta"}


def test_bfloat16_makes_nearly_the_same_video(generator: Generator) -> None:
    shape, request = PixelShape(5, 32, 48), Request("a red square", 0)
    full, half = (
        generator.videos([request], shape, SamplingConfig(steps=3, precision=p))[0].astype(float)
        for p in ("float32", "bfloat16")
    )
    assert 0 < np.abs(full - half).mean() < 4


@pytest.mark.parametrize("wrong", [{"device": "gpu"}, {"device": "cuda:"}, {"precision": "float16"}])
def test_where_and_how_precisely_is_checked(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"device is cpu|precision must be"):
        SamplingConfig(**wrong)  # type: ignore[arg-type]


def test_a_fresh_model_predicts_no_velocity() -> None:
    net = DiT(ModelConfig(size="nano", text=TEXT), CHANNELS, train_tokenizer(["x"], TEXT))
    pack = Pack(
        torch.randn(4, CHANNELS), torch.zeros(4, 3), torch.zeros(4, dtype=torch.bool), (4,), torch.ones(1), ("",)
    )
    assert not net(pack).any()
    assert model()(pack).any()
