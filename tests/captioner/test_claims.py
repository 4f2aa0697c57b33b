"""Claims: what a caption says, what else it could, what is left when one is struck, and what the test decides."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.claims_stage import CLAIMS_STAGE, sentence_of
from captioner.corrupt import CORRUPTIONS, refuting
from captioner.recipes import tiny
from captioner.stages import CAPTIONER_MODEL, CAPTIONS_STAGE
from captioner.train.checkpoint import load_checkpoint
from captioner.train.planted import measure
from captioner.train.verifier import Verifier
from captioner.verify import Evidence, VerifyConfig, plant, thresholds, verdict
from pipelines.execute import run_stage
from pipelines.manifest.gate import CAPTION_RULES, gate_rules, judged
from schemas import batches
from schemas.captions import CAPTION_CLAIMS, CAPTIONS, PAIRS, Fields, Subject
from schemas.claims import changed, struck, vocabulary
from schemas.errors import ConfigError
from schemas.language import NUM_VARIANTS, UNCHECKED, Claim, claims, claims_of, parse, render_dense, split_sentences
from schemas.store import Store
from tests.captioner.worlds import footage, record

COLORS, SHAPES = ("red", "blue", "pink"), ("star", "circle")
MOTIONS = ("still", "moving left", "moving up")
SLOTS = {
    "count": ("1", "2", "3"), "color.0": COLORS, "color.1": ("", *COLORS), "shape.0": SHAPES, "motion.0": MOTIONS,
    "camera": ("static", "panning left"), "background": ("sand", "grass"), "relation": ("", "left of", "above"),
    "size.0": ("small", "large"),
}  # fmt: skip
KNOWN = vocabulary(SLOTS)
subjects = st.builds(
    Subject,
    shape=st.sampled_from(SHAPES),
    color=st.sampled_from(COLORS),
    size=st.sampled_from(("", "small", "large")),
    motion=st.sampled_from(("", *MOTIONS)),
)


@st.composite
def captions(draw: st.DrawFn) -> Fields:
    some = draw(st.lists(subjects, min_size=1, max_size=3))
    events = ["moving left", "moving up"] if len(some) == 1 and draw(st.booleans()) else []
    if events:
        some = [Subject(shape=some[0].shape, color=some[0].color, motion="moving left")]
    return Fields(
        subjects=some,
        relation=draw(st.sampled_from(("", "left of"))) if len(some) > 1 else "",
        events=events,
        camera=draw(st.sampled_from(("", "static"))),
        background=draw(st.sampled_from(("", "sand"))),
        lighting=draw(st.sampled_from(("", "dusk"))),
        style=draw(st.sampled_from(("", "hand drawn"))),
        on_screen_text=draw(st.sampled_from(("", "EXIT 3. Left!"))),
    )


@given(captions())
def test_claims_are_those_of_the_language(fields: Fields) -> None:
    assert [(c.field, c.value) for c in claims_of(fields)] == claims(fields)


@given(captions(), st.data())
def test_a_planted_claim_is_said_and_nothing_else_changes(fields: Fields, data: st.DataObject) -> None:
    claim = data.draw(st.sampled_from([*claims_of(fields), Claim("count", 0, str(len(fields.subjects)))]))
    made = plant(fields, claim, np.random.default_rng(data.draw(st.integers(0, 99))), KNOWN)
    if made is None:
        return
    planted, wrong = made
    assert wrong.value != claim.value
    assert wrong in claims_of(planted)
    assert parse(render_dense(planted)) == planted
    if claim.field not in ("count", "event", "motion"):
        assert set(claims_of(planted)) - {wrong} == set(claims_of(fields)) - {claim}


@given(captions(), st.data())
def test_what_is_struck_is_not_said_and_the_rest_still_is(fields: Fields, data: st.DataObject) -> None:
    wrong = data.draw(st.lists(st.sampled_from(claims_of(fields)), unique=True, max_size=3))
    left = struck(fields, wrong)
    assert parse(render_dense(left)) == left
    assert set(claims_of(left)) <= set(claims_of(fields)) - set(wrong)
    if not any(c.field in ("count", "event") for c in wrong):
        assert set(claims_of(left)) == set(claims_of(fields)) - set(wrong)


@given(captions(), st.integers(0, NUM_VARIANTS - 1))
def test_every_claim_is_found_in_the_sentence_that_says_it(fields: Fields, variant: int) -> None:
    text = render_dense(fields, variant)
    for claim in claims_of(fields):
        number = sentence_of(text, claim)
        assert number >= 0
        if claim.field != "count":
            assert claim.value in split_sentences(text)[number]


def test_corruptions_change_what_they_should() -> None:
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    for t in range(4):
        frames[t, 2:4, t : t + 2] = (250, 10, 20)
    made = {name: corrupt(frames) for name, corrupt in CORRUPTIONS.items()}
    assert (made["reversed"][0] == frames[3]).all()
    assert (made["mirrored"][0, :, ::-1] == frames[0]).all()
    assert tuple(made["hue"][0, 2, 0]) == (20, 250, 10)
    assert (made["frozen"] == frames[2]).all()
    assert made["blanked"].max() < 40
    assert all((m != frames).any() and m.shape == frames.shape for m in made.values())
    assert refuting(Claim("motion", 0, "moving left")) == ("reversed", "frozen", "mirrored")
    assert refuting(Claim("motion", 0, "still")) == refuting(Claim("color", 0, "white")) == ()


def told(gap: float, *, several: bool = False, fall: float | None = 1.0) -> Evidence:
    return Evidence(Claim("color", 0, "red"), several, gap, "blue", fall, (-5.0, -6.0))


def test_thresholds_let_the_given_share_of_true_claims_fall_and_never_the_likeliest() -> None:
    config = VerifyConfig(false_alarms=0.05)
    weak = [told(-3.0 + n * 0.05) for n in range(100)]
    bounds = thresholds(weak, config)
    assert sum(e.gap < bounds["color", False] for e in weak) == 5
    sure = [told(2.0 + n) for n in range(30)]
    assert thresholds(sure, config) == {("color", False): 0.0, ("color", True): 0.0}  # too few of its own: the field's
    assert thresholds([*sure, *[told(-9.0, several=True)] * 30], config) == {("color", False): 0.0}
    assert thresholds([told(2.0)] * 5, config) == {}  # too few to say
    assert thresholds([told(-9.0, several=True)] * 30, config) == {}  # the captioner does not know the field


@pytest.mark.parametrize(
    ("evidence", "word"),
    [
        (told(3.0), "supported"),
        (told(-3.0), "contradicted"),
        (told(3.0, fall=-0.1), "unverifiable"),  # as likely on a clip that makes it false
        (told(3.0, fall=None), "supported"),
        (told(-3.0, several=True), "unverifiable"),  # no threshold
    ],
)
def test_verdicts(evidence: Evidence, word: str) -> None:
    assert verdict(evidence, {("color", False): -1.0}) == word


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Captions that say the truth of a few clips, but for one colour, and a tiny captioner that knows little."""
    store = footage(tmp_path_factory.mktemp("claims"))
    run_stage(CAPTIONER_MODEL, store, tiny())
    run_stage(CAPTIONS_STAGE, store, tiny(), batch="b")
    rows = store.read(CAPTIONS, batch="b").to_pylist()
    for row in rows:
        if row["clip_id"] in ("c0", "c1"):
            said = record("red" if row["clip_id"] == "c0" else "blue", "moving right")
            row.update(status="ok", reason="", short="A red square is here.", dense=render_dense(said))
            row["fields"] = dataclasses.asdict(said)
        if row["clip_id"] == "c2":
            row.update(status="ok", reason="", short="A gull.", dense="A gull flies. It lands.", fields=None)
    store.commit(CAPTIONS, CAPTIONS.from_rows(rows), batch="b")
    return store


def test_every_caption_that_is_ok_is_checked_and_nothing_is_said_without_thresholds(root: Store) -> None:
    run_stage(CLAIMS_STAGE, root, tiny(), batch="b")
    rows = {r["clip_id"]: r for r in root.read(CAPTION_CLAIMS, batch="b").to_pylist()}
    assert sorted(rows) == ["c0", "c1", "c2"]
    assert [c["field"] for c in rows["c0"]["claims"]] == ["size", "color", "shape", "motion", "background", "camera"]
    assert {c["verdict"] for r in rows.values() for c in r["claims"]} == {"unverifiable"}  # three pairs are too few
    assert rows["c0"]["fall_reversed"] is not None
    assert [c["value"] for c in rows["c2"]["claims"]] == ["A gull flies.", "It lands."]
    assert rows["c2"]["reason"] == "free prose has no fields to ask about"


def test_what_is_contradicted_is_struck_from_the_text(root: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = {("color", False): 99.0}
    monkeypatch.setattr("captioner.claims_stage._bounds", lambda context, checkpoint: bounds)
    run_stage(CLAIMS_STAGE, root, tiny(), batch="b", force=True)
    row = root.read(CAPTION_CLAIMS, batch="b").to_pylist()[0]
    assert (row["contradicted"], row["dense"].split(".")[0]) == (1, "A large square is moving right")
    assert row["fields"]["subjects"][0]["color"] == ""
    assert row["contradicted_share"] == pytest.approx(1 / 6)
    assert [c["sentence"] for c in row["claims"]] == [0, 0, 0, 0, 1, 2]
    before = root.read(CAPTIONS, batch="b").to_pylist()[1]
    assert "red" in before["dense"]  # the original stays


def test_footage_that_the_captioner_does_not_know_is_not_judged(tmp_path: Path, root: Store) -> None:
    store = footage(tmp_path, kind=batches.FOOTAGE)
    run_stage(CAPTIONER_MODEL, store, tiny())
    store.commit(CAPTIONS, root.read(CAPTIONS, batch="b"), batch="b")
    run_stage(CLAIMS_STAGE, store, tiny(), batch="b")
    rows = store.read(CAPTION_CLAIMS, batch="b").to_pylist()
    assert {r["reason"] for r in rows} == {"the captioner knows the rendered world alone"}


def test_planted_claims_are_measured_and_a_model_that_knows_nothing_finds_nothing(root: Store) -> None:
    (path,) = Path(root.at("checkpoints", "captioner")).iterdir()
    from captioner.stages import pair_of

    pairs = [pair_of(r) for r in root.read(PAIRS).to_pylist()]
    found = measure(load_checkpoint(str(path)), pairs[:4], VerifyConfig())
    assert found["planted"]["all"]["rate"] == 0
    assert found["planted"]["color"]["n"] == 4
    assert found["false_alarms"]["all"]["unverifiable"] == found["false_alarms"]["all"]["n"] == 24
    verifier = Verifier(load_checkpoint(str(path)))
    assert verifier.vocabulary["color"] == ["blue", "green", "red"]


def test_what_no_truth_knows_is_asked_about_and_stays_unverifiable(root: Store) -> None:
    (path,) = Path(root.at("checkpoints", "captioner")).iterdir()
    verifier = Verifier(load_checkpoint(str(path)))
    shown = dataclasses.replace(record("red", "moving up"), lighting="dusk", style="hand drawn", on_screen_text="EXIT")
    frames = np.zeros((8, 32, 32, 3), np.uint8)
    found = {e.claim.field: e for e in verifier.examine(frames, shown)}
    strict = {(field, several): 1e9 for field in found for several in (False, True)}
    for name in UNCHECKED:
        assert verdict(found[name], strict) == "unverifiable"
        assert not refuting(found[name].claim)
    assert verdict(found["color"], strict) == "contradicted"


def test_the_gate_is_rules_that_can_be_moved() -> None:
    rules = gate_rules(CAPTION_RULES, ["contradicted.max=0.2", "caption_scores.dense_min.min=0.1"])
    claims_row = dict.fromkeys(("supported", "contradicted", "unverifiable"), 1) | {
        "contradicted_share": 0.33, "worst_gap": None, "reason": "",
    }  # fmt: skip
    words = {w.rule: w for w in judged("c", {"caption_scores.dense_min": 0.3}, claims_row, rules, "m")}
    assert words["contradicted"].verdict == "reject"
    assert "0.33 is above 0.2" in words["contradicted"].reason
    assert words["caption_scores.dense_min"].verdict == "keep"
    assert {w.verdict for w in judged("c", {}, None, rules, "m")} == {"skipped"}
    with pytest.raises(ConfigError, match="there are caption_claims"):
        gate_rules(CAPTION_RULES, ["score_blur.edge.min=1"])


def test_changing_the_count_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="count"):
        changed(record("red", "still"), Claim("count", 0, "1"), "2")
