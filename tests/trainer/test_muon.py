"""Muon: what a step does to matrices, to vectors, to taps without gradient, and across a resume."""

import pytest
import torch

from trainer.checkpoint import optimizer_tensors, restore_optimizer
from trainer.muon import Muon, orthogonal


def made(seed: int = 0) -> tuple[torch.nn.Sequential, Muon]:
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Conv3d(4, 6, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(6 * 27, 5))
    matrices = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() == 1]
    return net, Muon(matrices, others, lr=1e-2, matrix_ratio=2.0)


def step(net: torch.nn.Sequential, optimizer: Muon, seed: int) -> None:
    x = torch.randn(2, 4, 3, 3, 3, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad(set_to_none=True)
    net(x).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (8, 8)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape), 5))
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.3


def test_what_has_no_gradient_does_not_move() -> None:
    matrix = torch.randn(4, 9)
    matrix[:, 3] = 0
    assert (orthogonal(matrix)[:, 3] == 0).all()
    assert (orthogonal(torch.zeros(3, 4)) == 0).all()
    net, optimizer = made()
    before = [p.detach().clone() for p in net.parameters()]
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters()))


def test_a_step_of_a_matrix_has_the_promised_size() -> None:
    net, optimizer = made()
    before = net[2].weight.detach().clone()
    step(net, optimizer, 0)
    moved = torch.linalg.svdvals(net[2].weight.detach() - before)
    assert float(moved.max()) == pytest.approx(2e-2, rel=0.35)


def test_vectors_move_as_adamw_moves_them() -> None:
    ours, theirs = (torch.nn.Parameter(torch.ones(7)) for _ in range(2))
    a = Muon([], [ours], lr=0.1, matrix_ratio=1.0, betas=(0.9, 0.95), weight_decay=0.01)
    b = torch.optim.AdamW([theirs], lr=0.1, betas=(0.9, 0.95), weight_decay=0.01)
    for seed in range(5):
        g = torch.randn(7, generator=torch.Generator().manual_seed(seed))
        ours.grad, theirs.grad = g.clone(), g.clone()
        a.step()
        b.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_resumed_optimiser_goes_on_to_the_same_bytes() -> None:
    net, optimizer = made()
    for seed in range(4):
        step(net, optimizer, seed)
    other, again = made()
    for seed in range(2):
        step(other, again, seed)
    weights, state = {k: v.clone() for k, v in other.state_dict().items()}, dict(optimizer_tensors(again))
    fresh, resumed = made(1)
    fresh.load_state_dict(weights)
    restore_optimizer(resumed, {k: v.clone() for k, v in state.items()})
    for seed in range(2, 4):
        step(fresh, resumed, seed)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), fresh.state_dict().values()))


def test_a_wrong_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="lr > 0"):
        Muon([], [torch.nn.Parameter(torch.ones(2))], lr=0.0, matrix_ratio=1.0)
    with pytest.raises(ValueError, match="two dimensions"):
        Muon([torch.nn.Parameter(torch.ones(2))], [], lr=0.1, matrix_ratio=1.0)
