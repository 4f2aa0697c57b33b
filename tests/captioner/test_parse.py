"""Each way in which a model's text can be wrong lands in its own status."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.parse import read, repetition
from schemas.captions import CaptionStatus, Fields, Subject
from schemas.language import render_dense

RECORD = Fields(
    subjects=[Subject(shape="star", color="red", size="small", motion="moving up")],
    events=["moving up", "moving down"],
    camera="panning left",
    background="night sky",
)
PROSE = (
    "A woman in a green coat walks along a wet pier at dusk while gulls circle above her. The camera follows "
    "from behind at shoulder height, and the lights of a ferry blink on the horizon to her right."
)


@pytest.mark.parametrize(
    ("text", "finish", "status", "word"),
    [
        ("", "stop", "unparsable", "nothing"),
        (" \n", "stop", "unparsable", "nothing"),
        ("A red star is moving", "length", "truncated", "budget"),
        ("the cat sat down and " * 12, "length", "repetitive", "comes"),
        ("ha" * 400, "stop", "repetitive", "deflates"),
        ("I'm sorry, but I cannot describe this.", "stop", "refused", "declined"),
        ("As an AI language model I have no eyes.", "stop", "refused", "declined"),
        ("No video was provided with your message.", "stop", "refused", "declined"),
        ("A red star is moving up. <|im_end|>", "stop", "unparsable", "control token"),
        ("<dense> A red star is moving up.", "stop", "unparsable", "control token"),
        (PROSE, "stop", "unparsable", "grammar"),
        ("A red is static is moving up.", "stop", "unparsable", "plain lowercase words"),
    ],
)
def test_bad_texts_land_in_their_status(text: str, finish: str, status: str, word: str) -> None:
    found = read(text, finish, require_fields=True)
    assert (found.status, found.fields) == (status, None)
    assert word in found.reason


@pytest.mark.parametrize("variant", range(4))
def test_our_own_style_is_read_into_fields(variant: int) -> None:
    found = read(render_dense(RECORD, variant), "stop", require_fields=True)
    assert found.status == CaptionStatus.OK
    assert found.fields == RECORD


def test_free_prose_is_kept_without_fields_where_none_are_asked_for() -> None:
    found = read(PROSE, "stop", require_fields=False)
    assert (found.status, found.fields, found.reason) == ("ok", None, "")


def test_speech_about_being_sorry_is_no_refusal() -> None:
    text = "A man in a grey suit looks sorry and cannot see the road. A sign says Sorry, closed."
    assert read(text, "stop", require_fields=False).status == CaptionStatus.OK


def test_three_times_is_no_loop_and_four_times_is() -> None:
    say = "moving to the left"
    assert not repetition(", then ".join([say] * 3))
    assert "comes 4 times" in repetition(", then ".join([say] * 4))


@given(st.text(max_size=300), st.sampled_from(["stop", "length"]), st.booleans())
def test_no_text_can_raise_and_only_ok_goes_without_a_reason(text: str, finish: str, strict: bool) -> None:
    found = read(text, finish, require_fields=strict)
    assert bool(found.reason) == (found.status != CaptionStatus.OK)
