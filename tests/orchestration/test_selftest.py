"""`dailies selftest`: the whole command on a few files, and its counts on tallies made by hand."""

import json
from pathlib import Path

import pytest

from orchestration import cli
from pipelines import selftest
from pipelines.synthetic.defects import FILE_DEFECTS, SHOT_DEFECTS
from pipelines.synthetic.evaluate import Tally
from schemas import batches
from schemas.store import Store

RATES = {"precision", "recall", "f1", "n"}


def test_it_prints_one_object_and_leaves_a_root_that_others_can_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["selftest", "--scale", "0.025", "--seed", "3", "--root", str(tmp_path / "root"), "--executor", "inline"]
    cli.main([*words, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"seed", "boundaries", "defects", "near_duplicates"}
    assert found["seed"] == 3
    assert set(found["boundaries"]) == {"hard", "fade", "dissolve", "flash"}
    assert set(found["defects"]) == {*SHOT_DEFECTS, *FILE_DEFECTS} - {"near_duplicate"}
    rows = [*found["boundaries"].values(), *found["defects"].values(), found["near_duplicates"]]
    assert all(set(row) == RATES for row in rows)
    assert found["boundaries"]["hard"]["n"] >= 3
    assert found["boundaries"]["hard"]["f1"] > 0.5
    assert batches.names(Store(tmp_path / "root")) == [selftest.BATCH]
    again = cli.main(words)
    assert "reused" in capsys.readouterr().err
    assert again in (0, 1)


def test_its_stages_are_those_of_curation_that_need_no_model() -> None:
    names = [s.name for s in selftest.stages()]
    assert names.index("footage") < names.index("videos") < names.index("scan") < names.index("shots")
    assert names.index("shots") < names.index("duplicates") < names.index("verdicts")
    assert {"signal_scores"} <= set(names)
    assert not {"clip_model", "embeddings", "synthetic_pairs", "clip_files", "manifest"} & set(names)


def test_a_root_with_other_footage_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path).create()
    batches.register(store, batches.Batch(name="mine", folder=str(tmp_path), kind=batches.FOOTAGE))
    assert cli.main(["selftest", "--root", str(tmp_path)]) == 2
    assert "holds other footage (mine)" in capsys.readouterr().err
    assert cli.main(["selftest", "--root", str(tmp_path / "new"), "--scale", "0"]) == 2


def test_marks_are_of_f1_and_what_has_no_member_misses_none() -> None:
    tallies = {
        "boundaries.hard": Tally(99, 100, 99, 100),
        "boundaries.gradual": Tally(8, 10, 8, 10),
        "defects.blur": Tally(20, 20, 19, 20),
        "defects.dark": Tally(10, 20, 20, 20),
        "near_duplicates": Tally(),
    }
    missed = selftest.below_marks(tallies)
    assert [m.partition(":")[0] for m in missed] == ["boundaries.gradual", "defects.dark"]
    assert "0.990 [0.946, 0.998]" in selftest.as_text(tallies)
    shown = selftest.as_json(7, tallies)
    assert shown["boundaries"]["hard"] == {"precision": 0.99, "recall": 0.99, "f1": pytest.approx(0.99), "n": 100}
    assert shown["near_duplicates"] == {"precision": None, "recall": None, "f1": None, "n": 0}
