"""The command: one line and exit code 2 for what cannot be, one JSON object for programs, and answers from tables."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from orchestration import cli
from orchestration.ask import from_arguments
from schemas.store import Store
from tests.orchestration import toys

Capture = pytest.CaptureFixture[str]


def dailies(capsys: Capture, *words: str) -> tuple[int, str, str]:
    """Run a command; returns its exit code, standard output and standard error."""
    try:
        code = cli.main(words)
    except SystemExit as e:  # argparse
        code = int(e.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_help_is_a_map(capsys: Capture) -> None:
    code, out, _ = dailies(capsys, "--help")
    assert code == 0
    for word in ("demo", "curate", "captioner", "train", "sample", "audit", "explain", "sql", "doctor", "up", "down"):
        assert word in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["stage", "weigh", "--recipe", "nope"], "unknown recipe `nope`"),
        (["stage", "weigh", "--set", "toy.aples=3"], "did you mean `apples`"),
        (["stage", "weigh", "--set", "toy.apples=three"], "`toy.apples` takes a value of type int"),
        (["stage", "weigh", "--set", "toy.apples=0"], "apples must be at least 1"),
        (["stage", "wiegh"], "did you mean `weigh`"),
        (["stage", "weigh"], "no batch under"),
        (["stage", "weigh", "--batch", "nowhere"], "no batch `nowhere`"),
        (["stage", "weigh", "--batch", "../up"], "batch name"),
        (["curate", "/no/such/folder"], "does not exist"),
        (["demo", "--footage", "/no/such/folder"], "does not exist"),
        (["sql", "SELECT 1"], "holds no tables"),
        (["audit", "abc"], "holds no tables"),
        (["explain", "step", "3"], "holds no tables"),
        (["manifest", "list"], "holds no tables"),
        (["report"], "holds no tables"),
        (["sample", "--prompt", "a red circle", "--size", "big"], "WIDTHxHEIGHT"),
        (["sample", "--prompt", " "], "--prompt is empty"),
        (["sample", "--prompt", "x", "--seconds", "-1"], "above 0"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(
    capsys: Capture, tmp_path: Path, toy_rooms: None, words: list[str], says: str
) -> None:
    code, out, err = dailies(capsys, *words, "--root", str(tmp_path / "root"))
    assert code == 2
    assert out == ""
    assert says in err
    assert err.count("\n") == 1
    assert err.startswith("dailies: ")


def test_an_empty_folder_is_refused(capsys: Capture, tmp_path: Path, toy_rooms: None) -> None:
    (tmp_path / "films").mkdir()
    code, _, err = dailies(capsys, "curate", str(tmp_path / "films"), "--root", str(tmp_path / "root"))
    assert (code, err.count("\n")) == (2, 1)
    assert "holds no files" in err
    (tmp_path / "film.mp4").write_bytes(b"x")
    assert "is a file" in dailies(capsys, "curate", str(tmp_path / "film.mp4"), "--root", str(tmp_path / "root"))[2]


def test_an_unwritable_root_is_refused(capsys: Capture, tmp_path: Path, toy_rooms: None) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    code, _, err = dailies(capsys, "stage", "press", "--root", str(blocked / "root"))
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot be written" in err
    if os.getuid():
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        assert dailies(capsys, "stage", "press", "--root", str(tmp_path / "root"))[0] == 2
        tmp_path.chmod(stat.S_IRWXU)


def test_only_the_demo_starts_ray_unasked() -> None:
    """argparse shares the common options between commands, and their defaults with them."""
    usual = {
        words[0]: from_arguments(cli.parser().parse_args(words)).executor
        for words in (["demo"], ["stage", "scan"], ["curate", "x"], ["caption"], ["evaluate"], ["report"])
    }
    assert usual.pop("demo") == "ray"
    assert set(usual.values()) == {"local"}
    assert from_arguments(cli.parser().parse_args(["demo", "--executor", "local"])).executor == "local"


def test_an_unknown_command_is_exit_code_2(capsys: Capture) -> None:
    assert dailies(capsys, "direct")[0] == 2
    assert dailies(capsys, "train", "nothing")[0] == 2


@pytest.fixture
def orchard(tmp_path: Path, toy_rooms: None, capsys: Capture) -> Store:
    """A root where all toy stages ran."""
    store = toys.root(tmp_path / "root")
    for name in ("footage", "weigh", "press", "juice"):
        assert dailies(capsys, "stage", name, "--root", store.root)[0] == 0
    return store


def test_json_is_exactly_one_object_on_standard_output(capsys: Capture, orchard: Store) -> None:
    code, out, err = dailies(capsys, "stage", "weigh", "--root", orchard.root, "--json", "--set", "toy.apples=6")
    found = json.loads(out)
    assert code == 0
    assert out.count("\n") == 1
    assert (found["computed"], found["rows"]) == (True, {"apples": 6})
    assert "weigh: 6/6 apples" in err


def test_a_stage_that_is_up_to_date_says_so(capsys: Capture, orchard: Store) -> None:
    _, out, err = dailies(capsys, "stage", "weigh", "--root", orchard.root)
    assert "reused" in out
    assert "next: dailies stage juice" in err


def test_settings_once_named_hold_for_the_root(capsys: Capture, orchard: Store) -> None:
    dailies(capsys, "stage", "weigh", "--root", orchard.root, "--set", "toy.apples=7")
    _, out, _ = dailies(capsys, "stage", "weigh", "--root", orchard.root, "--json")
    assert json.loads(out)["computed"] is False
    assert json.loads(out)["rows"] == {"apples": 7}


def test_the_list_of_stages(capsys: Capture, tmp_path: Path, toy_rooms: None) -> None:
    _, out, _ = dailies(capsys, "stage", "--list", "--json", "--root", str(tmp_path))
    assert [s["stage"] for s in json.loads(out)["stages"]] == ["press", "footage", "weigh", "juice"]


def test_a_broken_world_is_exit_code_1(capsys: Capture, tmp_path: Path, toy_rooms: None) -> None:
    store = toys.root(tmp_path / "root")
    code, out, err = dailies(capsys, "stage", "juice", "--root", store.root)
    assert (code, out) == (1, "")
    assert err.startswith("dailies: stage `juice` reads table `apples`")


def test_the_demo_without_dagster_runs_all_and_then_nothing(capsys: Capture, tmp_path: Path, toy_rooms: None) -> None:
    words = ["demo", "--no-dagster", "--executor", "local", "--root", str(tmp_path / "root"), "--json"]
    first = json.loads(dailies(capsys, *words)[1])
    assert (first["computed"], first["reused"]) == (4, 0)
    code, out, err = dailies(capsys, *words)
    assert code == 0
    assert json.loads(out)["reused"] == 4
    assert "nothing to do: 4 of 4 stages reused" in err


def test_sql_answers(capsys: Capture, orchard: Store) -> None:
    text = "SELECT batch, count(*) AS n, sum(weight_g) AS g FROM apples GROUP BY batch"
    _, out, _ = dailies(capsys, "sql", text, "--root", orchard.root, "--json")
    assert json.loads(out) == {"columns": ["batch", "n", "g"], "rows": [["b1", 4, 406.0]]}
    assert "apple2" in dailies(capsys, "sql", "FROM apples", "--root", orchard.root)[1]


def snapshot(store: Store) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(Path(store.path).rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    "text",
    [
        "COPY apples TO '{root}/tables/stolen.parquet'",
        "COPY (SELECT 1) TO '{root}/stolen.csv'",
        "DROP VIEW apples",
        "CREATE TABLE t AS SELECT 1",
        "INSERT INTO apples SELECT * FROM apples",
        "DELETE FROM apples",
        "SELECT 1; COPY apples TO '{root}/x.parquet'",
        "EXPLAIN ANALYZE COPY apples TO '{root}/x.parquet'",
        "SET enable_external_access = true",
        "ATTACH '{root}/x.db'",
        "INSTALL httpfs",
        "PRAGMA database_list; COPY apples TO '{root}/x.parquet'",
        "SELECT * FROM read_text('{root}/settings.json')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '{root}/../secret.parquet'",
        "SELECT * FROM nowhere",
        "SELEC 1",
        "",
    ],
)
def test_sql_only_reads_and_only_tables(capsys: Capture, orchard: Store, text: str) -> None:
    before = snapshot(orchard)
    code, out, err = dailies(capsys, "sql", text.format(root=orchard.root), "--root", orchard.root)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert snapshot(orchard) == before


def test_nothing_but_the_answer_reaches_standard_output(
    capsys: Capture, tmp_path: Path, toy_rooms: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loud(context: Any) -> Any:
        print("a library that talks")
        return toys.make_press(context)

    import dataclasses

    press = next(p for p in toys.PLACED if p.name == "press")
    noisy = dataclasses.replace(press, stage=dataclasses.replace(press.stage, run=loud))
    monkeypatch.setattr(cli_rooms(), "all_stages", lambda: (noisy,))
    _, out, err = dailies(capsys, "stage", "press", "--json", "--root", str(tmp_path))
    assert json.loads(out)["stage"] == "press"
    assert "a library that talks" in err


def cli_rooms() -> Any:
    from orchestration import rooms

    return rooms
