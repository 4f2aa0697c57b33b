"""A clip is followed from its source to the steps that saw it; a root is summed up in one table."""

import json
from pathlib import Path

import pytest

from orchestration import audit, cli, rooms, summary
from schemas import batches
from schemas.errors import UsageError
from schemas.store import Store
from tests.orchestration import films
from tests.orchestration.films import KEPT, REJECTED


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return films.root(tmp_path / "root")


def test_a_clip_is_followed_from_source_to_training(store: Store) -> None:
    found = audit.follow(store, KEPT)
    assert found["video"]["path"] == "a.mp4"
    assert found["shot"]["shot_id"] == "s1"
    assert found["scores"]["blur"]["sharpness"] == 0.9
    assert [v["verdict"] for v in found["verdicts"]] == ["keep"]
    assert found["captions"]["dense"] == "A <red> disc rolls left."
    assert found["manifest"]["manifest"] == "m1"
    training = found["training"]
    assert (training["seen"], training["first_step"], training["last_step"]) == (10, 0, 9)
    assert training["mean_loss"] == pytest.approx(1.55)
    assert training["captions"] == {"dense": 10}
    text = audit.as_text(found)
    for word in ("a.mp4", "sharpness", "disc rolls left", "m1", "first_step"):
        assert word in text
    assert text.count(KEPT) == 1


def test_a_rejected_clip_shows_by_what_and_that_nothing_saw_it(store: Store) -> None:
    found = audit.follow(store, REJECTED)
    assert found["selections"]["reasons"] == ["blur"]
    assert found["training"] == {"seen": 0}
    assert "manifest" not in found


@pytest.mark.parametrize(
    ("beginning", "says"),
    [("a", "begins several"), ("ff", "no clip `ff`"), ("'; --", "hex digits"), ("", "hex digits")],
)
def test_a_clip_that_is_not_one_is_refused(store: Store, beginning: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        audit.full_id(store, beginning)
    assert audit.full_id(store, "aa") == KEPT


def test_a_step_is_followed_to_its_clips(store: Store) -> None:
    found = audit.step(store, 3)
    assert [s["clip_id"] for s in found["samples"]] == [KEPT]
    assert (found["tokens"], found["mean_loss"]) == (7, pytest.approx(1.7))
    assert KEPT in audit.as_text(found)
    with pytest.raises(UsageError, match="steps 0 to 9"):
        audit.step(store, 10)


def test_the_commands_answer(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", "aa", "--root", store.root, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clip_id"] == KEPT
    assert cli.main(["explain", "step", "3", "--root", store.root, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 3
    assert cli.main(["explain", "clip", "aa", "--root", store.root]) == 0
    out, err = capsys.readouterr()
    assert "mean_loss" in out
    assert f"next: dailies audit {KEPT}" in err
    assert cli.main(["explain", "step", "x", "--root", store.root]) == 2


def test_the_table_says_what_the_tables_say(store: Store) -> None:
    batch = batches.get(store, "films")
    placed = rooms.for_batch(rooms.all_stages(), batch.kind)
    found = summary.numbers(store, placed, batch)
    assert found["videos"] == {"ok": 1, "unreadable": 1}
    assert found["clips"] == {"keep": 1, "reject": 1}
    assert found["rejected_by"] == {"blur": 1}
    assert found["loss"] == {"first": 2.0, "last": pytest.approx(1.1), "steps": 10}
    assert found["manifest"] == {"digest": "m1", "rows": 1}
    assert found["decode_passes_per_source"] == 1
    assert found["stages"]["dit"] == 2.5
    assert found["stages"]["report"] is None
    text = summary.table(found)
    for line in (
        "sources        ok 1, unreadable 1",
        "boundary F1 hard 0.97",
        "rejected by    blur 1",
        "blur             recall 0.60 [0.40, 0.80] n 20",
        "DiT loss       2.0000 -> 1.1000",
        "color            0.60 [0.40, 0.80] n 20; shuffled 0.20 [0.40, 0.80] n 20; chance 0.17",
        "never together whole            0.60 [0.40, 0.80] n 20; shuffled 0.10 n 20; seen 0.50 [0.40, 0.80] n 20",
    ):
        assert line in text
    assert "dark" not in text, "nothing was measured there"
    assert "subject" not in text, "training shows every such combination"


def test_an_empty_root_has_a_table_too(tmp_path: Path) -> None:
    store = Store(tmp_path).create()
    batch = batches.Batch(name="none", folder="x", kind=batches.FOOTAGE)
    found = summary.numbers(store, rooms.all_stages(), batch)
    assert found["videos"] == {}
    assert "sources        none" in summary.table(found)
