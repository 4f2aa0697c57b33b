"""Pixel <-> latent <-> token arithmetic, and which size and frames a clip is trained at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.shapes import (
    Compression,
    PixelShape,
    ShapeConfig,
    TokenGrid,
    choose_frames,
    fit,
    latent_shape,
    pixel_shape,
    token_grid,
    whole_frames,
)

COMPRESSIONS = st.builds(Compression, time=st.just(4), space=st.sampled_from([8, 16]), patch=st.sampled_from([1, 2]))


@given(COMPRESSIONS, st.integers(1, 30), st.integers(1, 60), st.integers(1, 60))
def test_pixels_to_tokens_and_back_is_exact(sizes: Compression, frames: int, height: int, width: int) -> None:
    grid = TokenGrid(frames, height, width)
    assert token_grid(latent_shape(pixel_shape(grid, sizes), sizes), sizes) == grid


@given(
    st.integers(32, 4000),
    st.integers(32, 4000),
    st.integers(1, 20),
    st.sampled_from([None, 4096, 16_384, 400_000]),
    COMPRESSIONS,
)
def test_less_than_a_cell_is_trimmed_and_the_budget_holds(
    width: int, height: int, latent_frames: int, area: int | None, sizes: Compression
) -> None:
    shape = ShapeConfig(max_area=area, max_tokens=8192)
    # where the shortest side allowed already needs more than the budget, there is nothing to find
    cells = min(shape.max_tokens // latent_frames, (area or 1 << 30) // sizes.cell**2)
    least = -(-shape.min_side // sizes.cell)
    if least * (least * max(width, height) / min(width, height) + 1) > cells or min(width, height) < least * sizes.cell:
        return
    found = fit(width, height, latent_frames, shape, sizes)
    assert 0 <= found.trimmed_height < sizes.cell
    assert 0 <= found.trimmed_width < sizes.cell
    grid = token_grid(latent_shape(PixelShape(1, found.height, found.width), sizes), sizes)
    assert grid.num_tokens * latent_frames <= shape.max_tokens
    assert area is None or found.height * found.width <= area
    assert 0 < found.scale <= 1
    assert abs(found.scaled_width - width * found.scale) <= 0.5
    assert abs(found.scaled_height - height * found.scale) <= 0.5


@given(st.integers(32, 500), st.integers(32, 500))
def test_a_clip_within_the_budget_is_never_scaled(width: int, height: int) -> None:
    found = fit(width, height, 1, ShapeConfig(max_area=None, max_tokens=4096), Compression())
    assert found.scale == 1
    assert (found.scaled_width, found.scaled_height) == (width, height)


@pytest.mark.parametrize(
    ("width", "height", "kept"),
    [(256, 144, (80, 48)), (144, 256, (48, 80)), (192, 144, (64, 48)), (144, 144, (64, 64)), (344, 144, (80, 32))],
)
def test_the_demo_aspect_ratios_keep_most_of_the_picture(width: int, height: int, kept: tuple[int, int]) -> None:
    found = fit(width, height, 4, ShapeConfig(), Compression())
    assert (found.width, found.height) == kept
    assert found.width * found.height / (found.scaled_width * found.scaled_height) > 0.78


def test_a_clip_too_long_and_thin_says_why() -> None:
    with pytest.raises(ValueError, match="1000x20 and 1 latent frames do not fit: at most 16 tokens"):
        fit(1000, 20, 1, ShapeConfig(), Compression())


@given(st.integers(1, 2000), st.floats(1, 120), st.sampled_from([None, 2.0, 4.0, 24.0]), st.integers(1, 129))
def test_frames_are_one_plus_four_k_and_inside_the_clip(
    num_frames: int, fps: float, train_fps: float | None, most: int
) -> None:
    choice = choose_frames(num_frames, fps, ShapeConfig(train_fps=train_fps, max_frames=most), Compression())
    assert len(choice.indices) % 4 == 1
    assert len(choice.indices) <= most
    assert choice.indices[0] == 0
    assert choice.indices[-1] < num_frames
    assert all(a < b for a, b in zip(choice.indices, choice.indices[1:]))
    assert choice.seconds_per_frame == pytest.approx(choice.step / fps)
    assert choice.step >= 1


def test_a_four_second_clip_at_four_frames_per_second_gives_thirteen_frames() -> None:
    choice = choose_frames(96, 24.0, ShapeConfig(train_fps=4.0, max_frames=13), Compression())
    assert choice.indices == tuple(range(0, 78, 6))
    assert choice.seconds_per_frame == pytest.approx(0.25)


@pytest.mark.parametrize(("available", "whole"), [(0, 0), (1, 1), (4, 1), (5, 5), (12, 9), (13, 13)])
def test_whole_frames(available: int, whole: int) -> None:
    assert whole_frames(available, Compression()) == whole


def test_what_does_not_divide_is_named() -> None:
    with pytest.raises(ValueError, match="height must be a multiple of 8 pixels, got 31"):
        latent_shape(PixelShape(1, 31, 64), Compression())
    with pytest.raises(ValueError, match=r"frames must be 1 \+ a multiple of 4, got 4"):
        latent_shape(PixelShape(4, 32, 64), Compression())
    with pytest.raises(ValueError, match="train_fps"):
        ShapeConfig(train_fps=0.0)
