"""The convolution over a token's neighbours: it sees its own sample, and nothing of any other."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.trainer.small_run import trainer
from trainer.model.local import Boxes, Local, boxes
from trainer.model.rope import coordinates
from trainer.parallelize import parallelize
from trainer.shapes import Compression, TokenGrid

GRIDS = [TokenGrid(3, 4, 4), TokenGrid(1, 3, 5), TokenGrid(3, 4, 4), TokenGrid(2, 5, 3), TokenGrid(1, 4, 4)]
WIDTH = 8


def where(grids: list[TokenGrid]) -> Boxes:
    places = np.concatenate([coordinates(g, 0.25, Compression()) for g in grids])
    return boxes(torch.from_numpy(places), [g.num_tokens for g in grids])


def local() -> Local:
    torch.manual_seed(0)
    return Local(WIDTH)


def test_it_is_the_three_dimensional_convolution_of_each_sample() -> None:
    layer, lengths = local(), [g.num_tokens for g in GRIDS]
    x = torch.randn(sum(lengths), WIDTH)
    with torch.no_grad():
        made = layer(x, where(GRIDS)).split(lengths)
        for grid, tokens, found in zip(GRIDS, x.split(lengths), made):
            box = layer.norm(tokens).reshape(1, grid.frames, grid.height, grid.width, WIDTH).permute(0, 4, 1, 2, 3)
            alone = functional.conv3d(box, layer.conv.weight, layer.conv.bias, padding=1, groups=WIDTH)
            assert torch.allclose(found, alone[0].permute(1, 2, 3, 0).flatten(0, 2), atol=1e-6)


def test_a_token_is_seen_by_its_neighbours_and_by_nobody_else() -> None:
    layer, grids = local(), [GRIDS[0], GRIDS[2]]
    x = torch.randn(2 * 48, WIDTH)
    moved = x.clone()
    moved[16 + 5] += torch.randn(WIDTH)  # frame 1, row 1, column 1 of the first
    with torch.no_grad():
        differs = (layer(x, where(grids)) != layer(moved, where(grids))).any(dim=1).reshape(2, 3, 4, 4)
    assert differs.sum(dim=(2, 3)).tolist() == [[9, 9, 9], [0, 0, 0]]
    assert differs[0, :, :3, :3].all()


def test_samples_of_one_shape_are_one_call() -> None:
    found = where(GRIDS)
    assert [(shape, len(at)) for shape, at in found.groups] == [
        ((1, 3, 5), 15),
        ((1, 4, 4), 16),
        ((2, 5, 3), 30),
        ((3, 4, 4), 96),
    ]


def test_a_sample_of_no_whole_frames_is_refused() -> None:
    places = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    with pytest.raises(ValueError, match="3 tokens is not made of frames of 2 x 2"):
        boxes(places, [3])


def test_training_with_it_is_other_training_and_compiles_to_the_same() -> None:
    def losses(*settings: str, compiler: str = "") -> list[float]:
        made = trainer(*settings)
        parallelize(made.model, made.world, compiler=compiler)
        return [made.train_step()[1]["loss"] for _ in range(3)]

    near = losses("model.local=true")
    assert near[0] == losses()[0], "the head begins at zero"
    assert near[1:] != losses()[1:]
    assert losses("model.local=true", compiler="eager") == near
    torch.compiler.reset()
