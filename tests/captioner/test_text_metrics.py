"""CIDEr and CLIPScore on captions whose scores are known, and with the extra missing."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.text_metrics import NoCider, cider, clip_score, mean_of, of_short, references, words
from captioner.written import as_lines
from schemas.captions import Fields, Pair, Subject
from schemas.language import NUM_VARIANTS, render_short

RED = Fields(subjects=[Subject(shape="circle", color="red", motion="moving left")], events=[])
BLUE = Fields(subjects=[Subject(shape="star", color="blue", motion="moving up")], events=[])


def pair(fields: Fields | None, short: str) -> Pair:
    return Pair(
        pair_id="p", split="held_out", frames=[], times_s=[], width=8, height=8, short=short, dense="", fields=fields,
        source="synthetic",
    )  # fmt: skip


def test_every_wording_of_the_truth_is_a_reference_and_texts_alone_are_their_own() -> None:
    found = references(pair(RED, "anything"))
    assert len(found) == NUM_VARIANTS
    assert render_short(RED, 3) in found
    assert references(pair(None, "A man walks.")) == ["A man walks."]


def test_words_are_lower_case_without_punctuation() -> None:
    assert words("There's a Red circle, which is left-most.") == "there's a red circle which is left-most"


def test_cider_is_ten_for_the_only_reference_and_nothing_without_a_word_in_common() -> None:
    right = [["a red circle is moving left"], ["the blue star goes up and away"]]
    assert cider(["A red circle is moving left.", "x y z"], right) == pytest.approx([10.0, 0.0])


def test_a_wrong_attribute_costs_and_a_wrong_subject_costs_more() -> None:
    pairs = [pair(RED, render_short(RED, 0)), pair(BLUE, render_short(BLUE, 1))]
    right = [references(p) for p in pairs]
    own, wrong, other = (
        cider([text, render_short(BLUE, 1)], right)[0]
        for text in (render_short(RED, 0), "A red circle is moving up.", render_short(BLUE, 0))
    )
    assert own > wrong > other
    assert own < 10, "it is one of four wordings"


def test_short_captions_stand_beside_the_truths_own() -> None:
    pairs = [pair(RED, render_short(RED, 0)), pair(BLUE, render_short(BLUE, 1))]
    found = of_short([p.short for p in pairs], pairs)
    assert found["mean"] == found["truth"]
    assert found["n"] == 2
    assert found["low"] <= found["mean"] <= found["high"]
    assert of_short(["nothing at all"] * 2, pairs)["mean"] == 0


def test_one_text_is_refused_and_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="two texts or more"):
        cider(["a"], [["a"]])
    monkeypatch.setitem(sys.modules, "pycocoevalcap.cider.cider", None)
    with pytest.raises(NoCider, match=r"pip install 'dailies\[metrics\]'"):
        cider(["a", "b"], [["a"], ["b"]])


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=9))
def test_clip_score_is_two_and_a_half_cosines_and_never_negative(cosines: list[float]) -> None:
    found = clip_score(cosines)
    assert 0 <= found <= 2.5
    assert found == pytest.approx(np.mean([2.5 * max(c, 0) for c in cosines]))


def test_the_interval_of_a_mean_holds_it_and_is_the_same_again() -> None:
    scores = list(np.random.default_rng(0).uniform(0, 1, 200))
    found = mean_of(scores)
    assert found == mean_of(scores)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * np.std(scores) / np.sqrt(200), rel=0.1)
    with pytest.raises(ValueError, match="no scores"):
        mean_of([])


def test_people_are_told_what_was_left_out_and_why() -> None:
    found = {
        "cider": {"mean": 5.0, "low": 4.0, "high": 6.0, "n": 3, "truth": 5.5},
        "left_out": {"clip_score": "no CLIP"},
    }
    assert as_lines(found) == ["CIDEr        5.000 [4.000, 6.000]  n 3  truth 5.500", "CLIPScore    left out: no CLIP"]
