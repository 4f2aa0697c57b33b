"""`train verify`: what it prints is measured, so a broken trainer shows in it."""

import json

import pytest
import torch

from orchestration import cli
from trainer import verify
from trainer.model import block
from trainer.recipes import RECIPES
from trainer.shapes import ShapeConfig

FEW = verify.VerifyConfig(samples=400, packs=2)


def test_every_promise_holds_on_twenty_thousand_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "verify", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["packed_vs_alone_max_rel"] <= 1e-6
    assert found["permutation_bitwise_equal"] is True
    assert (found["cropped_pixels"], found["padding_tokens"]) == (0, 0)
    assert found["fill"] >= 0.98
    assert found["pack_100k_s"] > 0


def test_attention_that_looks_at_the_neighbour_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaking(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, where: object) -> torch.Tensor:
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1)

    monkeypatch.setattr(block, "attention", leaking)
    found = verify.verify(FEW, RECIPES["demo"]().shape)
    assert found.packed_vs_alone_max_rel > 1e-3
    assert not found.kept["packed_vs_alone_max_rel"]


def test_a_fit_that_crops_to_a_square_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def square(width: int, height: int, *rest: object) -> verify.Fit:
        return verify.Fit(1.0, height, width, 32, 32)

    monkeypatch.setattr(verify, "fit", square)
    found = verify.verify(FEW, RECIPES["demo"]().shape)
    assert found.cropped_pixels > 0
    assert not found.kept["cropped_pixels"]


def test_shapes_are_drawn_as_promised() -> None:
    shapes = verify.draw_shapes(20_000, 0)
    images = sum(frames == 1 for _, _, frames in shapes) / len(shapes)
    assert images == pytest.approx(0.3, abs=0.01)
    aspects = {min(verify.ASPECTS, key=lambda a, w=w, h=h: abs(a - w / h)) for w, h, _ in shapes[:200]}
    assert aspects == set(verify.ASPECTS)
    assert verify.draw_shapes(50, 1) == verify.draw_shapes(50, 1)


def test_a_larger_recipe_keeps_them_too() -> None:
    shape = ShapeConfig(train_fps=8.0, max_frames=33, max_area=128 * 128, max_tokens=1024, patch=2)
    found = verify.verify(verify.VerifyConfig(samples=2000, packs=1), shape)
    assert all(ok for name, ok in found.kept.items() if name != "pack_100k_s")
