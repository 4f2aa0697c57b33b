"""What counts as shown by training, and rates apart for prompts that ask for something else."""

import dataclasses

import pytest

from pipelines.synthetic.combinations import LEVELS, apart, clips_showing, shown_by
from pipelines.synthetic.evaluate import Batch
from schemas.captions import Fields, Subject
from tests.pipelines.synthetic.test_evaluate import _batch, _clip, _truth, _truth_video

RED = {"color": "red", "shape": "circle", "motion": "still", "background": "sand", "camera": "static"}
CHANCE = {"color": 1 / 6, "shape": 1 / 4, "motion": 1 / 5, "background": 1 / 4, "camera": 1 / 5}


def _fields(*subjects: tuple[str, str, str], events: tuple[str, ...] = (), background: str = "sand") -> Fields:
    named = [Subject(color=c, shape=s, motion=m, size="small") for c, s, m in subjects]
    return Fields(subjects=named, events=list(events), camera="static", background=background)


def _scenes() -> Batch:
    truth = [
        _truth(0, 0, 20, "start", fields=_fields(("red", "circle", "still"))),
        _truth(1, 30, 50, "dissolve", transition_start_frame=20, fields=_fields(("blue", "star", "moving up"))),
        _truth(
            2, 50, 70,
            fields=_fields(
                ("pink", "square", "moving left"), ("cyan", "circle", "still"), events=("moving left", "still")
            ),
        ),
    ]  # fmt: skip
    return _batch(truth_shots=truth, clips=[_clip("c0", 0, 20), _clip("c1", 0, 21), _clip("c2", 50, 70)])


def _subjects(batch: Batch, *trained: str) -> dict[tuple[str, ...], int]:
    shown = shown_by([batch], trained)
    assert shown is not None
    return dict(shown["subject"])


def test_only_clips_of_the_training_count_and_each_counts_once() -> None:
    assert _subjects(_scenes(), "c0", "c0") == {("red", "circle", "still"): 1}


def test_a_clip_that_touches_a_transition_shows_what_comes() -> None:
    found = _subjects(_scenes(), "c0", "c1")
    assert found == {("red", "circle", "still"): 2, ("blue", "star", "moving up"): 1}


def test_every_subject_counts_and_every_motion_of_the_first() -> None:
    assert set(_subjects(_scenes(), "c2")) == {
        ("pink", "square", "moving left"),
        ("pink", "square", "still"),
        ("cyan", "circle", "still"),
    }


@pytest.mark.parametrize("copy", [False, True])
def test_of_a_damaged_file_every_shot_counts(copy: bool) -> None:
    videos = [_truth_video("a.mp4", "corrupt")]
    if copy:
        videos = [_truth_video("a.mp4", "duplicate", "b.mp4"), _truth_video("b.mp4", "corrupt")]
    damaged = dataclasses.replace(_scenes(), truth_videos=videos)
    assert len(_subjects(damaged, "c0")) == 5


def test_without_truth_for_every_training_clip_nothing_is_said() -> None:
    assert shown_by([_scenes()], ["c0", "from real footage"]) is None
    shown = shown_by([_scenes()], [])
    assert shown is not None
    assert not any(shown.values())


def test_levels_are_nested() -> None:
    shown = shown_by([_scenes()], ["c0", "c1"])
    assert shown is not None
    assert clips_showing(shown, RED) == {"subject": 2, "on_background": 2, "whole": 2}
    assert clips_showing(shown, {**RED, "camera": "zooming in"}) == {"subject": 2, "on_background": 2, "whole": 0}
    assert clips_showing(shown, {**RED, "shape": "star"}) == dict.fromkeys(LEVELS, 0)


def test_rates_of_seen_and_unseen_prompts_stand_beside_the_same_videos_shuffled() -> None:
    shown = shown_by([_scenes()], ["c0"])
    assert shown is not None
    star = {**RED, "shape": "star"}
    asked = [RED, RED, star, star, star]
    videos = [RED, {**RED, "color": "blue"}, star, RED, {}]
    others = [star, star, RED, RED, RED]
    found = {(m.group, m.name): m for m in apart(shown, videos, asked, others, CHANCE)}

    def counted(group: str, name: str) -> tuple[float | None, int]:
        return found[group, name].value, found[group, name].n

    assert counted("seen_subject", "color") == (0.5, 2)
    assert counted("seen_subject", "together") == (0.5, 2)
    assert counted("unseen_subject", "color") == (pytest.approx(2 / 3), 3)
    assert counted("unseen_subject", "shape") == (pytest.approx(1 / 3), 3)
    assert counted("unseen_subject", "together") == (pytest.approx(1 / 3), 3)
    assert counted("control_unseen_subject", "shape") == (pytest.approx(1 / 3), 3)
    assert counted("control_seen_subject", "together") == (0.0, 2)
    assert counted("unseen_whole", "together") == (pytest.approx(1 / 3), 3)
    assert found["unseen_subject", "together"].chance == pytest.approx(1 / 120)
    assert (found["unseen_subject", "color"].low or 0) > 0.2


def test_where_training_shows_all_unseen_rates_have_no_trial() -> None:
    shown = shown_by([_scenes()], ["c0"])
    assert shown is not None
    found = {(m.group, m.name): m for m in apart(shown, [RED], [RED], [], CHANCE)}
    assert found["unseen_whole", "together"].value is None
    assert found["seen_whole", "together"].n == 1
    assert found["control_seen_whole", "together"].n == 0, "one video has no other's prompt"
