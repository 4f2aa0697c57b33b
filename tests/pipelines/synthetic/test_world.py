"""Scenes: one right order of naming, relations that hold in the picture, and where every subject is in it."""

import itertools

import numpy as np
import pytest

from pipelines.synthetic.pairs import PairsConfig, make_pair
from pipelines.synthetic.render import on_screen, render_frame
from pipelines.synthetic.world import COLORS, MOTIONS, Scene, WorldConfig, generator, sample_scene

SEVERAL = WorldConfig(subject_weights=(0.0, 0.7, 0.3), events_among_several=0.5)


def scenes(count: int = 200) -> list[Scene]:
    return [
        sample_scene(generator("test world", i), SEVERAL, aspect)
        for i, aspect in zip(range(count), itertools.cycle((16 / 9, 9 / 16, 1.0, 2.39)))
    ]


def test_subjects_are_named_by_colour_and_the_relation_is_that_of_the_first_two_named() -> None:
    ranks, said = list(COLORS), set()
    for scene in scenes():
        fields = scene.fields()
        order = [ranks.index(s.color) for s in fields.subjects]
        assert order == sorted(set(order))
        assert scene.key == (fields.subjects[0].color, fields.subjects[0].shape, fields.subjects[0].motion)
        first, second = (on_screen(scene, a, 0.0, 100, 100) for a in scene.named[:2])
        said.add(fields.relation)
        match fields.relation:
            case "left of":
                assert first[0] < second[0]
            case "right of":
                assert first[0] > second[0]
            case "above":
                assert first[1] < second[1]
            case "below":
                assert first[1] > second[1]
            case hides:
                top = min(scene.actors.index(a) for a in scene.named[:2])
                assert (scene.actors[top] is scene.named[0]) == (hides == "partly hiding")
    assert said == {"left of", "right of", "above", "below", "partly hiding", "partly hidden by"}


def test_among_several_the_first_named_goes_and_comes_back_without_leaving_its_row() -> None:
    found = 0
    for scene in scenes():
        fields = scene.fields()
        if not fields.events:
            continue
        found += 1
        going, coming = (np.array(MOTIONS[e]) for e in fields.events)
        assert (going == -coming).all()
        start, turn, end = (np.array(scene.named[0].place(u)) for u in (0.0, 0.5, 1.0))
        assert end == pytest.approx(start)
        assert (turn - start) @ going == pytest.approx(0.45)
        assert fields.subjects[0].motion == fields.events[0]
        assert all(len(a.motions) == 1 for a in scene.named[1:])
    assert found > 40


def test_footage_has_no_such_scenes_unless_it_is_asked_for_them() -> None:
    calm = WorldConfig(subject_weights=(0.0, 0.7, 0.3))
    assert all(not sample_scene(generator("calm", i), calm, 1.0).fields().events for i in range(50))


def test_a_pair_says_where_each_subject_is_in_each_frame() -> None:
    config, world = PairsConfig(two_subjects=0.5), WorldConfig()
    for index in range(12):
        pair = make_pair(config, world, "train", index)
        assert [len(track) for track in pair.places] == [16] * len(pair.fields.subjects)
    scene = scenes(1)[0]
    x, y = on_screen(scene, scene.actors[0], 0.5, 320, 180)  # the topmost one is seen whole
    seen = render_frame(scene, 0.5, 320, 180)[round(y), round(x)]
    assert np.abs(seen.astype(int) - COLORS[scene.actors[0].color]).max() < 12
