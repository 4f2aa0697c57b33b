"""Contract of every task in the list, the algebra of chains, and that training sees what sampling will give."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.execute import run_stage
from schemas.latents import LATENTS
from tests.trainer.small_world import make_root
from trainer import randomness
from trainer.autoencoder.model import encode
from trainer.autoencoder.pictures import prepare, read
from trainer.autoencoder.stage import loaded
from trainer.config import DitSettings, DrawConfig, LatentConfig, TrainerConfig
from trainer.data import Samples, batch_of, draw_visit
from trainer.dit_stage import selected
from trainer.flow import FlowConfig
from trainer.model.patch import patchify
from trainer.plan import Visit
from trainer.recipes import tiny
from trainer.shapes import Compression, TokenGrid
from trainer.stages import STAGES
from trainer.tasks import TASKS, connect, draw, extend_backward, fill_in
from trainer.tasks.base import Chain, Layout, Region, Views, draw_views, parse_views
from trainer.views import as_given, given_pixels, greyed

GRIDS = st.builds(TokenGrid, st.integers(1, 12), st.integers(1, 5), st.integers(1, 5))
NOTHING_GIVEN = {"text_to_video", "text_to_image", "loop", "video_to_video"}


@pytest.mark.parametrize("name", TASKS)
@settings(max_examples=60, deadline=None)
@given(grid=GRIDS, clip=st.integers(0, 10**6), visit=st.integers(0, 10**6))
def test_every_task_lays_out_exactly_the_samples_tokens(name: str, grid: TokenGrid, clip: int, visit: int) -> None:
    task, views = TASKS[name], draw_views(f"clip{clip}", grid, 3, 4)
    if not task.fits(grid, views):
        return
    layout = task.draw(grid, views, randomness.generator(0, "x", visit, "what is given"))
    mask = layout.given(grid)
    assert layout.frames == grid.frames
    assert mask.shape == (grid.frames, grid.height, grid.width)
    assert not mask.all(), "nothing is left to generate"
    assert mask.any() == (name not in NOTHING_GIVEN)
    assert layout.slots == grid.frames - len(layout.chains) + 1
    assert layout.times().tolist() == sorted(layout.times().tolist())
    assert set(layout.times().tolist()) == set(range(layout.slots))
    assert {c.start for c in layout.chains[1:]} <= set(views.tails)
    assert layout.region is None or layout.region in views.regions
    again = task.draw(grid, views, randomness.generator(0, "x", visit, "what is given"))
    assert again == layout


@given(GRIDS, st.integers(0, 10**6), st.integers(0, 5), st.integers(0, 5))
def test_views_are_drawn_within_the_clip_and_read_back_from_their_names(
    grid: TokenGrid, clip: int, tails: int, regions: int
) -> None:
    views = draw_views(f"clip{clip}", grid, tails, regions)
    assert parse_views(list(views.names())) == views
    assert len(views.tails) == min(tails, max(0, grid.frames - 2))
    assert all(0 < t < grid.frames - 1 for t in views.tails)
    for region in views.regions:
        cells = region.given(grid.height, grid.width)
        assert cells.any()
        assert not cells.all()
        assert cells.sum() == (1 if region.inside else -1) * region.height * region.width + (
            0 if region.inside else grid.height * grid.width
        )


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_a_tail_meets_the_generated_chain_in_one_picture(head: int, gap: int, tail: int) -> None:
    layout = connect.layout(head, gap, tail)
    assert layout.frames == head + gap + tail
    assert layout.times().tolist() == [*range(head + gap), *range(head + gap - 1, head + gap + tail - 1)]
    assert fill_in.layout((head, tail), (gap,)) == layout
    assert extend_backward.layout(gap, tail).slots == gap + tail - 1


def test_wrong_layouts_fail_at_construction() -> None:
    for chains in ((), (Chain(1, 2),), (Chain(0, 2), Chain(2, 1, 1)), (Chain(0, 2), Chain(1, 2)), (Chain(0, 2, 3),)):
        with pytest.raises(ValueError, match=r"chain|begin"):
            Layout(chains)
    with pytest.raises(ValueError, match="1 gaps between"):
        fill_in.layout((1, 1), (1, 1))


@given(GRIDS, st.integers(0, 1000))
def test_a_task_of_weight_zero_or_that_does_not_fit_is_never_drawn(grid: TokenGrid, visit: int) -> None:
    weights = dict.fromkeys(TASKS, 1.0) | {"extend_forward": 0.0}
    task = draw(weights, grid, Views(), randomness.generator(0, "x", visit, "task"))
    assert task.name != "extend_forward"
    assert not task.needs
    assert draw({"connect": 1.0}, grid, Views(), randomness.generator(0, "x", visit, "task")).name == "text_to_video"


def test_the_default_weights_draw_what_they_drew_before() -> None:
    """Numbers of the release before regions and tails: losses that are pinned elsewhere depend on them."""
    weights = DrawConfig().weights()
    names = [
        draw(weights, TokenGrid(3, 2, 2), Views(), randomness.generator(0, f"c{i}", 0, "task")).name for i in range(400)
    ]
    assert [i for i, n in enumerate(names) if n == "image_to_video"][:6] == FIRST_SIX
    assert set(names) == {"text_to_video", "image_to_video"}


FIRST_SIX = [2, 17, 35, 36, 53, 63]


def test_a_region_gives_pixels_in_whole_cells_and_greys_the_rest() -> None:
    sizes = Compression(space=4, patch=2)
    pictures = np.full((1, 24, 32, 3), 9, np.uint8)
    box = Region(1, 2, 1, 2, inside=False)
    mask = given_pixels(box, 24, 32, sizes)
    assert not mask[8:16, 16:32].any()
    assert mask.sum() == 24 * 32 - 8 * 16
    assert (greyed(pictures, box, sizes)[0, 8:16, 16:32] == 128).all()
    inside = dataclasses.replace(box, inside=True)
    assert (given_pixels(inside, 24, 32, sizes) == ~mask).all()


def with_views() -> TrainerConfig:
    weights = tuple(f"{name}:1" for name in TASKS)
    dit = dataclasses.replace(tiny().dit, draw=DrawConfig(tasks=weights))
    shape = dataclasses.replace(tiny().shape, max_frames=13, train_fps=8.0)
    return dataclasses.replace(tiny(), shape=shape, dit=dit, latents=LatentConfig(rows_per_shard=4, tails=2, regions=4))


def test_what_training_is_given_is_what_sampling_would_encode(tmp_path: Path) -> None:
    """Given tokens equal an encoding of the given pictures alone; generated ones are the clip's own."""
    store, config = make_root(tmp_path), with_views()
    for stage in STAGES[:2]:
        run_stage(stage, store, config)
    autoencoder = loaded(store, store.read(STAGES[0].writes[0]).to_pylist()[0])
    rows, _ = selected(store, DitSettings(dit=config.dit, shape=config.shape))
    samples, sizes = Samples(store, rows, 1), Compression(space=16, patch=1)
    clips = {r["clip_id"]: r for r in store.read(STAGES[1].reads[0]).to_pylist()}
    seen = set()
    for row in rows:
        clip = clips[row["clip_id"]]
        plan = prepare(clip["num_frames"], clip["fps"], clip["width"], clip["height"], config.shape, sizes)
        pictures = read(store.fetch(clip["path"]), plan)
        whole = samples.tokens(row["clip_id"])
        for visit in range(12):
            sample = samples.rows[row["clip_id"]]
            d = draw_visit(
                Visit(row["clip_id"], 0, visit), sample, whole.shape[1], 0, config.dit.draw, FlowConfig(), sizes
            )
            tokens, cells = samples.drawn(d), sample.grid.height * sample.grid.width
            assert len(tokens) == len(d.given) == sample.grid.num_tokens
            seen.add(d.task)
            begin = 0
            for c in d.layout.chains:
                part = slice(begin * cells, (begin + c.given) * cells)
                alone = pictures[4 * c.start : 4 * (c.start + c.given - 1) + 1]
                if c.given:
                    assert torch.allclose(tokens[part], patchify(encode(autoencoder, alone), 1), atol=1e-4)
                begin += c.frames
            if d.layout.region:
                (alone,) = as_given(pictures, Views((), (d.layout.region,)), sizes).values()
                mask = torch.from_numpy(d.given)
                assert torch.allclose(tokens[mask], patchify(encode(autoencoder, alone), 1)[mask], atol=1e-4)
                assert torch.equal(tokens[~mask], whole[~mask])
            batch = batch_of([d], [tokens])
            assert torch.equal(batch.pack.x[batch.pack.given], tokens[batch.pack.given])
    assert seen == set(TASKS) - {"text_to_image"} | ({"text_to_image"} & seen)
    assert all(r["views"] for r in rows if r["latent_frames"] > 2)
    assert run_stage(STAGES[2], store, config).computed
    assert store.read(LATENTS).num_rows == 7


def test_a_task_on_views_without_views_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`connect` is trained on views of clips: set latents\.tails"):
        dataclasses.replace(tiny(), dit=dataclasses.replace(tiny().dit, draw=DrawConfig(tasks=("connect:1",))))
