"""What a visit of training reads of a caption: the same for the same draw, in the shares that were asked for."""

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from schemas.captions import Fields, Subject
from schemas.language import UNCHECKED, claims_of, parse, render_dense, render_short
from schemas.rendering import Generator, RenderPolicy, Texts, as_json, dropped, fitted, importance, render

RECORD = Fields(
    subjects=[
        Subject(shape="star", color="red", size="small", motion="moving up"),
        Subject(shape="circle", color="blue", size="large", motion="still"),
    ],
    relation="left of",
    events=[],
    camera="panning left",
    background="night sky",
)
TEXTS = Texts(short=render_short(RECORD, 1), dense=render_dense(RECORD, 1), fields=RECORD, human="My holiday.")


def keyed(clip: int) -> Generator:
    def generator(purpose: str) -> np.random.Generator:
        return np.random.default_rng([clip, *purpose.encode()])

    return generator


def test_by_default_texts_are_read_as_they_were_written() -> None:
    for clip in range(200):
        kind, text = render(TEXTS, RenderPolicy(), keyed(clip))
        assert text == {"short": TEXTS.short, "dense": TEXTS.dense}[kind]
        assert kind == ("short" if keyed(clip)("short caption").random() < 0.2 else "dense")  # as before there was one


def test_blends_come_in_the_shares_that_were_asked_for() -> None:
    policy = RenderPolicy(short=0.3, json=0.2, human=0.05)
    seen = Counter(render(TEXTS, policy, keyed(clip))[0] for clip in range(4000))
    want = {"short": 1200, "json": 800, "human": 200, "dense": 1800}
    assert stats.chisquare([seen[k] for k in want], list(want.values())).pvalue > 1e-4


def test_a_kind_that_a_clip_does_not_have_is_dense() -> None:
    bare = Texts(short="", dense="A gull flies. It lands.", fields=None)
    policy = RenderPolicy(short=0.4, json=0.3, human=0.3, field_dropout=0.5, reworded=1.0)
    assert {render(bare, policy, keyed(c)) for c in range(50)} == {("dense", bare.dense)}


def test_json_says_what_is_said_and_its_order_is_drawn() -> None:
    texts = {render(TEXTS, RenderPolicy(short=0, json=1, shuffled=1), keyed(c))[1] for c in range(20)}
    assert len(texts) > 5
    assert {json.dumps(json.loads(t), sort_keys=True) for t in texts} == {
        json.dumps(json.loads(as_json(RECORD)), sort_keys=True)
    }


def test_other_words_and_another_order_say_the_same() -> None:
    policy = RenderPolicy(short=0, reworded=1.0, shuffled=1.0)
    texts = {render(TEXTS, policy, keyed(c))[1] for c in range(60)}
    assert len(texts) > 6
    assert all(parse(t) == RECORD for t in texts)


@given(st.floats(0, 1), st.integers(0, 10_000))
def test_dropout_leaves_claims_out_and_invents_none(chance: float, seed: int) -> None:
    left = dropped(RECORD, chance, np.random.default_rng(seed))
    assert set(claims_of(left)) <= set(claims_of(RECORD))
    assert left.subjects[0].shape == "star"
    assert parse(render_dense(left)) == left


def test_dropout_happens_as_often_as_asked() -> None:
    lost = sum(not dropped(RECORD, 0.1, np.random.default_rng(n)).camera for n in range(2000))
    assert stats.binomtest(lost, 2000, 0.1).pvalue > 1e-4


@given(st.integers(1, 60))
def test_a_budget_leaves_out_the_least_important_claims_and_cuts_none_in_two(most: int) -> None:
    text = render(TEXTS, RenderPolicy(short=0, max_words=most), keyed(0))[1]
    kept = parse(text)
    assert len(text.split()) <= max(most, 5)
    assert set(claims_of(kept)) <= set(claims_of(RECORD))
    gone = set(claims_of(RECORD)) - set(claims_of(kept))
    counted = [c for c in claims_of(kept) if c.field not in ("count", "shape")]
    if gone and counted:
        dropped_first = min(importance(c) for c in gone if c.field not in ("count", "shape"))
        assert max(importance(c) for c in counted) <= dropped_first
    assert kept.subjects[0].shape == "star"


def test_a_budget_that_is_wide_changes_nothing_and_prose_keeps_whole_sentences() -> None:
    assert render(TEXTS, RenderPolicy(short=0, max_words=500), keyed(0))[1] == TEXTS.dense
    prose = Texts(short="", dense="A gull flies over the pier. It lands on a post. The sea is calm.")
    assert render(prose, RenderPolicy(max_words=12), keyed(0))[1] == "A gull flies over the pier. It lands on a post."
    assert fitted(RECORD, lambda record: True) == RECORD


def test_lighting_style_and_text_on_the_screen_go_first_where_words_are_few() -> None:
    looks = dataclasses.replace(RECORD, lighting="dusk", style="film grain", on_screen_text="EXIT")
    texts = Texts(short=TEXTS.short, dense=render_dense(looks, 1), fields=looks)
    most = len(render_dense(RECORD, 0).split())
    assert render(texts, RenderPolicy(short=0, max_words=most), keyed(0))[1] == render_dense(RECORD, 0)
    told = render(texts, RenderPolicy(short=0, json=1), keyed(0))[1]
    assert json.loads(told)["on_screen_text"] == "EXIT"
    assert all(name not in as_json(RECORD) for name in UNCHECKED)


def test_json_of_a_record_without_them_keeps_the_order_that_it_was_drawn_in() -> None:
    """The draw is over what a record could say before these fields came."""
    policy = RenderPolicy(short=0, json=1, shuffled=1)
    assert [list(json.loads(render(TEXTS, policy, keyed(c))[1])) for c in (0, 1, 2)] == [
        ["relation", "subjects", "background", "camera"],
        ["relation", "background", "subjects", "camera"],
        ["subjects", "background", "camera", "relation"],
    ]


@pytest.mark.parametrize("bad", [{"short": 0.7, "json": 0.4}, {"field_dropout": 1.5}, {"max_words": -1}])
def test_a_policy_that_cannot_be_is_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=r"shares|max_words"):
        RenderPolicy(**bad)
