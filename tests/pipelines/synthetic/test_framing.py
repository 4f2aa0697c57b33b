"""Whether a subject is whole and in frame: against the geometry of renders."""

import numpy as np
import pytest

from pipelines.synthetic.framing import framing, is_whole
from pipelines.synthetic.render import render_clip
from pipelines.synthetic.world import SIZES, Actor, Scene

TIMES = [i / 8 for i in range(9)]


def scene(x: float, motion: str = "still", size: str = "small", camera: str = "static") -> Scene:
    actor = Actor(shape="circle", color="red", size=size, motions=(motion,), middle=(x, 0.0))
    return Scene(actors=(actor,), relation="", background="concrete", camera=camera, texture=1, shift=(0.2, 0.3))


@pytest.mark.parametrize("size", SIZES)
def test_a_subject_is_whole_as_long_as_its_edge_is_inside(size: str) -> None:
    edge = 0.5 - SIZES[size]  # of a square picture, in short sides
    for x in (0.0, 0.5 * edge, edge - 0.06):
        found = framing(render_clip(scene(x, size=size), TIMES, 64, 64))
        assert (found.whole, found.frames_whole, found.frames_seen) == (True, 1.0, 1.0)
    for x in (edge + 0.06, edge + SIZES[size]):
        found = framing(render_clip(scene(-x, size=size), TIMES, 64, 64))
        assert (found.whole, found.frames_whole, found.frames_seen) == (False, 0.0, 1.0)


def test_the_square_of_a_wide_picture_cuts_a_subject_at_its_side() -> None:
    frames = render_clip(scene(0.5), TIMES, 128, 64)
    assert framing(frames).whole
    assert not framing(np.ascontiguousarray(frames[:, :, 32:96])).whole


def test_one_that_leaves_is_whole_in_some_frames_only() -> None:
    found = framing(render_clip(scene(0.3, motion="moving right"), TIMES, 64, 64))
    assert not found.whole
    assert 0 < found.frames_whole < 1


def test_nothing_to_see_is_not_whole() -> None:
    empty = Scene(actors=(), relation="", background="sand", camera="static", texture=1, shift=(0.0, 0.0))
    found = framing(render_clip(empty, TIMES, 64, 64))
    assert (found.whole, found.frames_whole) == (False, 0.0)


def test_what_covers_most_of_the_picture_is_no_whole_subject() -> None:
    mask = np.zeros((20, 20), bool)
    mask[1:19, 1:19] = True
    assert not is_whole(mask)
    mask[10:] = False
    assert is_whole(mask)
