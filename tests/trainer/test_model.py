"""The packed transformer: a sample's loss does not depend on its company, and given tokens are left alone."""

import dataclasses

import numpy as np
import pytest
import torch

from trainer.config import DrawConfig
from trainer.data import Batch, Drawn, Sample, batch_of, draw_visit
from trainer.flow import FlowConfig, interpolate, target
from trainer.model.attention import grouped, segments
from trainer.model.config import ModelConfig, TextConfig
from trainer.model.dit import DiT, beside_linear_guess
from trainer.model.patch import patchify, unpatchify
from trainer.model.rope import split
from trainer.model.text import train_tokenizer
from trainer.plan import Visit
from trainer.shapes import Compression, TokenGrid

CAPTIONS = ["A small red circle moves left over sand.", "A large blue star is still.", "Grass, and a white square."]
GRIDS = [TokenGrid(3, 4, 4), TokenGrid(1, 3, 5), TokenGrid(3, 4, 4), TokenGrid(2, 5, 3), TokenGrid(4, 2, 6)]
CHANNELS = 12
TEXT = TextConfig(vocabulary=300, width=24, heads=2)


def model(seed: int = 0, size: str = "nano") -> DiT:
    torch.manual_seed(seed)
    made = DiT(ModelConfig(size=size, text=TEXT), CHANNELS, train_tokenizer(CAPTIONS, TEXT))
    with torch.no_grad():  # zero-initialised parts would hide everything
        for p in made.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return made


def drawn(seed: int = 0, draw: DrawConfig | None = None) -> tuple[list[Drawn], list[torch.Tensor]]:
    draw = draw or DrawConfig(tasks=("text_to_video:0.5", "image_to_video:0.5"), no_caption=0.2)
    samples = [Sample(f"clip{i}", "", g, 0.25, CAPTIONS[i % 3][:12], CAPTIONS[i % 3]) for i, g in enumerate(GRIDS)]
    visits = [draw_visit(Visit(s.clip_id, 0, 0), s, CHANNELS, seed, draw, FlowConfig(), Compression()) for s in samples]
    rng = np.random.default_rng(seed)
    tokens = [torch.from_numpy(rng.standard_normal((g.num_tokens, CHANNELS), dtype=np.float32)) for g in GRIDS]
    return visits, tokens


def losses(net: DiT, batch: Batch) -> torch.Tensor:
    return batch.losses(net(batch.pack))


def test_a_packed_sample_has_the_loss_it_has_alone() -> None:
    net = model()
    for seed in range(4):
        visits, tokens = drawn(seed)
        packed = losses(net, batch_of(visits, tokens))
        alone = torch.cat([losses(net, batch_of([v], [x])) for v, x in zip(visits, tokens)])
        assert ((packed - alone).abs() / alone).max() < 1e-6


def test_the_gradient_of_a_pack_is_the_sum_of_its_samples_gradients() -> None:
    net = model()
    visits, tokens = drawn()
    losses(net, batch_of(visits, tokens)).sum().backward()
    packed = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    net.zero_grad()
    for v, x in zip(visits, tokens):
        losses(net, batch_of([v], [x])).sum().backward()
    alone = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    assert (packed - alone).norm() / alone.norm() < 2e-6


def test_permuting_a_pack_changes_no_samples_loss_by_a_single_bit() -> None:
    net = model(size="tiny")
    visits, tokens = drawn(3)
    order = [3, 0, 4, 2, 1]
    one = losses(net, batch_of(visits, tokens))
    two = losses(net, batch_of([visits[i] for i in order], [tokens[i] for i in order]))
    assert torch.equal(one[order], two)


def test_a_pack_holds_the_samples_tokens_and_no_padding() -> None:
    visits, tokens = drawn()
    pack = batch_of(visits, tokens).pack
    assert len(pack.x) == sum(g.num_tokens for g in GRIDS) == sum(pack.lengths)


def test_given_tokens_are_clean_and_carry_no_loss() -> None:
    visits, tokens = drawn(1, DrawConfig(tasks=("image_to_video:1",), no_caption=0.0))[0][2:3], drawn(1)[1][2:3]
    batch = batch_of(visits, tokens)
    given = batch.pack.given
    assert given[:16].all()
    assert not given[16:].any()
    assert torch.equal(batch.pack.x[given], tokens[0][given])
    wrong = batch.target.clone()
    wrong[given] += 100
    assert batch.losses(wrong).item() == 0


def test_a_single_frame_is_never_drawn_for_image_to_video() -> None:
    visits, tokens = drawn(0, DrawConfig(tasks=("text_to_video:0.01", "image_to_video:0.99")))
    assert visits[1].task == "text_to_video"
    assert {v.task for i, v in enumerate(visits) if i != 1} == {"image_to_video"}
    assert len(tokens) == len(visits)


def test_draws_depend_on_the_visit_and_not_on_the_company() -> None:
    one, _ = drawn(5)
    alone = [
        draw_visit(
            v.visit,
            Sample(v.visit.clip_id, "", g, 0.25, "s", "d"),
            CHANNELS,
            5,
            DrawConfig(tasks=("text_to_video:0.5", "image_to_video:0.5"), no_caption=0.2),
            FlowConfig(),
            Compression(),
        )
        for v, g in reversed(list(zip(one, GRIDS)))
    ]
    for a, b in zip(one, reversed(alone)):
        assert (a.task, a.caption) == (b.task, b.caption)
        assert a.t == b.t
        assert np.array_equal(a.noise, b.noise)
    sample = Sample("clip0", "", GRIDS[0], 0.25, "s", "d")
    later = draw_visit(Visit("clip0", 1, 1), sample, CHANNELS, 5, DrawConfig(), FlowConfig(), Compression())
    assert later.t != one[0].t
    assert not np.array_equal(later.noise, one[0].noise)


def test_captions_are_blended_at_the_rates_of_the_config() -> None:
    config = DrawConfig(short_captions=0.25, no_caption=0.1)
    sample = Sample("c", "", GRIDS[1], 0.25, "short", "dense")
    seen = [
        draw_visit(Visit("c", i, i), sample, 2, 0, config, FlowConfig(), Compression()).caption for i in range(2000)
    ]
    assert seen.count("none") / 2000 == pytest.approx(0.1, abs=0.025)
    assert seen.count("short") / 2000 == pytest.approx(0.9 * 0.25, abs=0.03)


@pytest.mark.parametrize("spread", [1.0, 3.0, 0.5])
def test_the_linear_guess_leaves_unit_variance_at_every_noise_level(spread: float) -> None:
    rng = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(4000, 8, generator=rng) for _ in range(2))
    x0, variance = spread * x0, torch.full((8,), spread**2)
    for t in (0.02, 0.3, 0.5, 0.9, 1.0):
        level = torch.full((4000, 1), t)
        x_t = interpolate(x0, noise, level)
        wanted = target(x0, noise)
        guess = beside_linear_guess(torch.zeros_like(x0), x_t, level, variance)
        per_unit = beside_linear_guess(torch.ones_like(x0), x_t, level, variance) - guess
        assert float(((wanted - guess) / per_unit).var()) == pytest.approx(1.0, abs=0.03)
        assert abs(float((x_t * (wanted - guess)).mean())) < 0.03 * max(1.0, spread**2)  # nothing linear is left


def test_a_model_with_the_linear_guess_packs_as_exactly_and_starts_from_it() -> None:
    torch.manual_seed(0)
    fresh = DiT(ModelConfig(size="nano", text=TEXT, linear_guess=True), CHANNELS, train_tokenizer(CAPTIONS, TEXT))
    visits, tokens = drawn()
    batch = batch_of(visits, tokens)
    level = batch.pack.t.repeat_interleave(torch.tensor(batch.pack.lengths)).where(~batch.pack.given, 0.0)[:, None]
    expected = beside_linear_guess(torch.zeros_like(batch.pack.x), batch.pack.x, level)
    assert torch.allclose(fresh(batch.pack), expected, atol=1e-6)
    with torch.no_grad():
        for p in fresh.parameters():
            p.add_(0.05 * torch.randn_like(p))
    packed = losses(fresh, batch)
    alone = torch.cat([losses(fresh, batch_of([v], [x])) for v, x in zip(visits, tokens)])
    assert ((packed - alone).abs() / alone).max() < 1e-6


def test_attention_stays_inside_its_segment() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths, texts = [5, 3, 5], [4, 2, 7]
    q = torch.randn(13, 2, 8, generator=generator)
    k, v = torch.randn(2, 13, 2, 8, generator=generator)
    where = segments(lengths, texts)
    before = grouped(q, k, v, where)
    k[4:6] += 10  # the second sample's keys
    v[4:6] += 10
    after = grouped(q, k, v, where)
    assert torch.equal(before[:5], after[:5])
    assert torch.equal(before[8:], after[8:])
    assert not torch.allclose(before[5:8], after[5:8])


def test_grouped_attention_equals_one_sample_at_a_time() -> None:
    generator = torch.Generator().manual_seed(1)
    lengths, texts = [5, 3, 5, 1], [4, 2, 7, 1]
    q = torch.randn(14, 2, 8, generator=generator)
    k, v = torch.randn(2, 14, 2, 8, generator=generator)
    found = grouped(q, k, v, segments(lengths, texts)).split(lengths)
    parts = zip(found, q.split(lengths), k.split(texts), v.split(texts))
    for o, a, b, c in parts:
        weights = (torch.einsum("qnk,mnk->nqm", a, b) / 8**0.5).softmax(-1)
        assert torch.allclose(o, torch.einsum("nqm,mnk->qnk", weights, c), atol=1e-6)


def test_patchify_is_undone_by_unpatchify() -> None:
    latent = torch.arange(3 * 2 * 6 * 4, dtype=torch.float32).reshape(3, 2, 6, 4)
    tokens = patchify(latent, 2)
    assert tokens.shape == (2 * 3 * 2, 12)
    assert torch.equal(unpatchify(tokens, TokenGrid(2, 3, 2), 2), latent)


@pytest.mark.parametrize("head_dim", [16, 32, 48, 64, 72, 128])
def test_a_head_is_split_into_even_parts(head_dim: int) -> None:
    parts = split(head_dim)
    assert sum(parts) == head_dim
    assert all(p > 0 and p % 2 == 0 for p in parts)


def test_time_on_the_rotary_axis_is_seconds() -> None:
    """Twice the frame rate with half the spacing in seconds is the same to the model."""
    net = model()
    visits, tokens = drawn(2)
    base = batch_of(visits[:1], tokens[:1])
    faster = dataclasses.replace(base.pack, positions=base.pack.positions * torch.tensor([0.5, 1, 1]))
    assert not torch.allclose(net(base.pack), net(faster))
    moved = dataclasses.replace(base.pack, positions=base.pack.positions + torch.tensor([3.0, 2.0, 1.0]))
    assert torch.allclose(net(base.pack), net(moved), atol=1e-4)  # only differences of positions count
