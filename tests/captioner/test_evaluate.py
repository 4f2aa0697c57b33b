"""Claims are counted as one would by hand."""

import dataclasses
import json
from pathlib import Path

import pytest

from captioner.evaluate import Share, report, tally
from captioner.recipes import tiny
from captioner.stages import CAPTIONER_MODEL
from orchestration import cli
from pipelines.execute import run_stage
from schemas.captions import PAIRS, Fields, Subject
from schemas.checkpoints import CAPTIONER_CHECKPOINT
from schemas.errors import MissingTable, UsageError
from schemas.store import Store
from tests.captioner.worlds import pairs


def record(color: str, *more: str, camera: str = "static") -> Fields:
    subjects = [Subject(shape="star", color=c, motion="still") for c in (color, *more)]
    return Fields(subjects=subjects, events=[], camera=camera)


def test_counts_by_hand() -> None:
    counted = tally([(record("red"), record("red")), (record("blue"), record("red")), (None, record("red"))])
    assert (counted.captions, counted.hallucinated) == (3, 1)
    assert counted.precision() == Share(7, 8)
    assert counted.recall() == Share(7, 12)
    assert counted.recall("color") == Share(1, 3)


def test_a_claim_that_is_said_twice_is_right_once() -> None:
    counted = tally([(record("red", "red"), record("red", "blue"))])
    assert counted.precision("color") == Share(1, 2)
    assert counted.precision("count") == Share(1, 1)


def test_attributes_belong_to_their_subject_and_events_to_their_place() -> None:
    truth = Fields(
        subjects=[Subject(shape="circle", color="blue"), Subject(shape="square", color="red")],
        relation="left of",
        events=["moving up", "moving down"],
    )
    named_otherwise = dataclasses.replace(truth, subjects=truth.subjects[::-1], relation="right of")
    assert tally([(named_otherwise, truth)]).hallucinated == 0
    mixed = [Subject(shape="circle", color="red"), Subject(shape="square", color="blue")]
    counted = tally([(dataclasses.replace(truth, subjects=mixed), truth)])
    assert counted.precision("color").hits + counted.precision("shape").hits == 2  # of four: one way or the other
    turned = tally([(dataclasses.replace(truth, relation="right of"), truth)])
    assert (turned.precision("relation"), turned.hallucinated) == (Share(0, 1), 1)
    back = tally([(dataclasses.replace(truth, events=truth.events[::-1]), truth)])
    assert (back.precision("event"), back.ordered_right, back.ordered) == (Share(0, 2), 0, 1)
    one_more = [*truth.subjects, Subject(shape="star", color="pink")]
    assert tally([(dataclasses.replace(truth, subjects=one_more), truth)]).precision() == Share(7, 10)


def test_one_and_several_subjects_are_counted_apart() -> None:
    right, wrong = (record("red"), record("red")), (record("blue"), record("red"))
    several = (record("red", "blue"), record("red", "pink"))
    found = report(tally([right, wrong, several]))["hallucinated_caption_rate"]
    assert (found["one_subject"]["rate"], found["one_subject"]["n"]) == (0.5, 2)
    assert (found["several_subjects"]["rate"], found["several_subjects"]["n"]) == (1.0, 1)


def test_what_no_truth_knows_is_neither_right_nor_wrong() -> None:
    lit = dataclasses.replace(record("red"), lighting="dusk", style="hand drawn", on_screen_text="EXIT")
    assert tally([(lit, record("red"))]) == tally([(record("red"), record("red"))])


def test_wilson_interval_of_two_percent_of_200() -> None:
    low, high = Share(4, 200).interval
    assert (low, high) == pytest.approx((0.00781, 0.05028), abs=1e-4)
    assert Share(0, 0).interval == (0.0, 1.0)


def test_the_report_has_the_keys_that_the_command_promises() -> None:
    found = report(tally([(record("red"), record("red")), (record("blue"), record("red", camera="zooming in"))]))
    assert set(found) == {"fields", "claims", "hallucinated_caption_rate"}
    assert set(found["fields"]["color"]) == {"accuracy", "low", "high", "n"}
    assert found["hallucinated_caption_rate"]["rate"] == 0.5
    assert found["fields"]["camera"]["accuracy"] == 0.5


def test_the_command_measures_the_checkpoint_as_training_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path).create()
    words = ["captioner", "evaluate", "--root", str(tmp_path), "--json"]
    assert cli.main(words) == UsageError.exit_code  # an empty root
    store.commit(PAIRS, PAIRS.from_rows(pairs()))
    assert cli.main(words) == MissingTable.exit_code
    assert "dailies captioner train" in capsys.readouterr().err
    run_stage(CAPTIONER_MODEL, store, tiny())
    (row,) = store.read(CAPTIONER_CHECKPOINT).to_pylist()
    assert cli.main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("captioner") == row["digest"]
    of_texts = found.pop("texts")
    assert of_texts["cider"]["n"] == 3
    assert of_texts["cider"]["mean"] < of_texts["cider"]["truth"]
    assert "CLIP has read no caption" in of_texts["left_out"]["clip_score"]
    assert found == json.loads(row["metrics"])["report"]
    assert found["hallucinated_caption_rate"]["n"] == 3
