"""The README's queries run as written, on a real root."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import duckdb
import pytest

from orchestration import cli, recipes
from tests.house import SETTINGS

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("query", blocks("sql"))
def test_every_query_of_the_readme_gives_rows(house: Path, query: str) -> None:
    assert "'runs/demo/" in query
    assert duckdb.sql(query.replace("runs/demo/", f"{house}/")).fetchall()


@pytest.mark.parametrize("code", blocks("python"))
def test_every_pandas_example_of_the_readme_runs(house: Path, code: str) -> None:
    assert '"runs/demo/' in code
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code.replace("runs/demo/", f"{house}/"), {})
    assert "ok" in printed.getvalue()


def test_one_query_follows_a_clip_from_source_to_training_step() -> None:
    assert any("m.source" in q and "l.step" in q for q in blocks("sql"))


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for target in set(re.findall(r"^make (\w+)", README, flags=re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_line_that_names_real_models_is_accepted() -> None:
    (line,) = re.findall(r"^dailies curate FOLDER .*--set .*$", README, flags=re.MULTILINE)
    settings = re.findall(r"--set (\S+)", line)
    (name,) = re.findall(r"--recipe (\S+)", line)
    chosen = recipes.recipe(name, settings)
    assert chosen.curation.clip.model
    assert chosen.captioner.backend == "transformers_vlm"
    assert chosen.trainer.autoencoder.pretrained


def _commands() -> list[list[str]]:
    text = "\n".join(blocks("bash"))
    return [shlex.split(line, comments=True)[1:] for line in text.splitlines() if line.startswith("dailies ")]


def test_every_command_of_the_readme_is_one_that_dailies_takes() -> None:
    assert len(_commands()) > 8
    for words in _commands():
        cli.parser().parse_args(words)


def test_the_condition_of_the_readme_is_one_over_the_manifest(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (words,) = [w for w in _commands() if "--where" in w]
    words[words.index("--root") + 1] = str(house)
    settings = [word for s in SETTINGS for word in ("--set", s)]
    assert cli.main([*words, "--recipe", "tiny", *settings, "--json"]) in (0, 1)  # 1: nothing so long was rendered
    assert "condition" not in capsys.readouterr().err
