"""The caption grammar: what is rendered can be read back, and what cannot be read is refused with a reason."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.captions import Fields, Subject
from schemas.language import (
    NUM_VARIANTS,
    Unparsable,
    check,
    claims,
    parse,
    render_dense,
    render_short,
    says,
    split_sentences,
)

_words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)


def _fits(fields: Fields) -> bool:
    try:
        check(fields)
    except ValueError:
        return False
    return True


_phrases = st.lists(_words, min_size=1, max_size=3).map(" ".join)
_maybe = st.one_of(st.just(""), _phrases)
_subjects = st.builds(
    Subject,
    shape=_phrases,
    color=st.one_of(st.just(""), _words),
    size=st.sampled_from(["", "small", "large"]),
    motion=_maybe,
)
_screen = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=40)
_fields = st.builds(
    Fields,
    subjects=st.lists(_subjects, min_size=1, max_size=4),
    relation=_maybe,
    events=st.lists(_phrases, max_size=3),
    camera=_maybe,
    background=_maybe,
    lighting=_maybe,
    style=_maybe,
    on_screen_text=_screen.map(str.strip),
).filter(_fits)

LOOKS = {"lighting": "soft evening light", "style": "hand drawn", "on_screen_text": "EXIT 12. Keep left! Is it far?"}
TWO = Fields(
    subjects=[
        Subject(shape="circle", color="orange", size="small", motion="moving left"),
        Subject(shape="square", color="blue", size="large", motion="still"),
    ],
    relation="left of",
    events=["moving left", "moving up"],
    camera="panning left",
    background="night sky",
)


@settings(deadline=None, max_examples=100)
@given(_fields, st.integers(0, 10))
def test_any_record_survives_being_said_and_read(fields: Fields, variant: int) -> None:
    assert parse(render_dense(fields, variant)) == fields


@settings(deadline=None)
@given(_fields, st.integers(0, 10))
def test_a_short_caption_says_colour_shape_and_motion_of_the_main_subject(fields: Fields, variant: int) -> None:
    main = fields.subjects[0]
    if not main.color and main.shape.startswith(("small", "large")):
        return
    read = parse(render_short(fields, variant))
    assert read == Fields(subjects=[Subject(shape=main.shape, color=main.color, motion=main.motion)], events=[])


@pytest.mark.parametrize("variant", range(NUM_VARIANTS))
def test_text_on_the_screen_is_one_sentence_as_it_stands_there(variant: int) -> None:
    shown = dataclasses.replace(TWO, **LOOKS)
    text = render_dense(shown, variant)
    assert parse(text) == shown
    assert render_dense(TWO, variant) in text, "what was said before is said in the same words"
    added = split_sentences(text)[-3:]
    assert [list(says(s)) for s in added] == [["lighting"], ["style"], ["on_screen_text"]]
    assert says(added[2])["on_screen_text"] == LOOKS["on_screen_text"]


def test_other_quotes_are_split_into_sentences_as_ever() -> None:
    assert split_sentences('A sign says "Stop. Now." A man waits.') == ['A sign says "Stop.', 'Now." A man waits.']


@pytest.mark.parametrize("text", ['"EXIT"', "two\nlines", " padded", "`code`", "bell\x07", "\u202eturned"])
def test_text_that_would_end_its_quotes_or_hides_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="one printable line"):
        check(dataclasses.replace(TWO, on_screen_text=text))


def test_variants_differ_and_state_every_field() -> None:
    texts = {render_dense(TWO, v) for v in range(NUM_VARIANTS)}
    assert len(texts) == NUM_VARIANTS
    for text in texts:
        assert all(value in text for field, value in claims(TWO) if field != "count")
        assert "video" not in text


def test_a_dense_caption_of_one_subject_has_at_most_45_words() -> None:
    one = Fields(subjects=TWO.subjects[:1], events=TWO.events, camera=TWO.camera, background=TWO.background)
    assert max(len(render_dense(one, v).split()) for v in range(NUM_VARIANTS)) <= 45


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("A red circle is still. The camera is", "breaks off"),
        ("Purple dreams.", "fits no sentence"),
        ("The background is sand.", "names no subject"),
        ("A red circle is still. The camera is static. The camera is panning left.", "twice"),
        ("Two subjects are visible. A red circle is still.", "two and names 1"),
        ("A red circle is still. A blue square is still.", "one and names 2"),
    ],
)
def test_what_does_not_parse_says_why(text: str, why: str) -> None:
    with pytest.raises(Unparsable, match=why):
        parse(text)


@pytest.mark.parametrize(
    "bad",
    [
        Subject(shape=""),
        Subject(shape="Circle"),
        Subject(shape="circle", motion="up then down"),
        Subject(shape="x", size="big"),
    ],
)
def test_a_value_the_grammar_cannot_carry_is_refused(bad: Subject) -> None:
    with pytest.raises(ValueError, match=r"(needs|one of|cannot be)"):
        render_dense(Fields(subjects=[bad], events=[]))


def test_claims_name_what_is_said_and_nothing_else() -> None:
    assert claims(Fields(subjects=[Subject(shape="star", color="red")], events=[], camera="static")) == [
        ("color", "red"),
        ("shape", "star"),
        ("camera", "static"),
    ]


@pytest.mark.parametrize("variant", range(4))
def test_among_several_subjects_events_are_said_of_the_first(variant: int) -> None:
    assert "the first subject is moving left, then moving up." in render_dense(TWO, variant)
