"""A person's word on captions: a sample drawn before them, asked sentence by sentence, counted with intervals."""

import dataclasses
import json
from pathlib import Path

import pytest

from captioner.recipes import tiny
from captioner.stages import CAPTIONS_STAGE
from orchestration import cli
from orchestration.claim_labels import ClaimSession, drawn, questions
from pipelines.execute import run_stage
from schemas.captions import CAPTIONS
from schemas.errors import UsageError
from schemas.store import Store
from tests.captioner.worlds import footage


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = footage(tmp_path)
    run_stage(CAPTIONS_STAGE, made, dataclasses.replace(tiny(), backend="fake"), batch="b")
    return made


def test_the_sample_does_not_depend_on_the_captions(store: Store) -> None:
    before = drawn(store, ["b"], 4, 7)
    rows = store.read(CAPTIONS, batch="b").to_pylist()
    worse = [{**r, "status": "refused", "dense": ""} if i % 2 else r for i, r in enumerate(rows)]
    store.commit(CAPTIONS, CAPTIONS.from_rows(worse), batch="b")
    assert list(drawn(store, ["b"], 4, 7)) == list(before)
    assert list(drawn(store, ["b"], 4, 8)) != list(before)


def test_answers_are_counted_by_sentence_and_by_caption(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["calibrate", "--claims", "--root", store.root, "--sample", "3", "--json"]
    assert cli.main(words) == UsageError.exit_code
    assert "label --claims" in capsys.readouterr().err
    captions = {c: d for c, d in drawn(store, ["b"], 3, 0).items() if d}
    asked = questions(captions)
    session = ClaimSession(store, asked, {}, {})
    first = session.next()["item"]
    assert first["title"].endswith(asked[0].stratum)
    assert len(asked) == sum(d.count(".") for d in captions.values())
    for n, q in enumerate(asked):
        session.answer(q.rule, q.clip_id, "reject" if n == 0 else "keep")
    assert cli.main(words) == 0
    found = json.loads(capsys.readouterr().out)
    n = len(asked)
    assert (found["sentences_that_hold"]["rate"], found["sentences_that_hold"]["n"]) == (round((n - 1) / n, 4), n)
    assert found["hallucinated_captions"]["n"] == len(captions)
    assert found["hallucinated_captions"]["low"] > 0
    session.undo()
    assert cli.main(words) == 0
    assert json.loads(capsys.readouterr().out)["sentences_that_hold"]["n"] == n - 1


def test_the_page_is_drawn_and_an_empty_root_says_what_to_run(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["label", "--claims", "--root", store.root, "--check", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["questions"] > 6
    assert "k it holds" in said.err
