"""`dailies experiment`: reports that hold their intervals, nothing done twice, and clear refusals."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from orchestration import cli
from orchestration.experiments import filters, plot
from orchestration.experiments.human import with_human
from orchestration.experiments.prompts import NAMED, asked, right
from orchestration.experiments.scaling import exponent
from pipelines.manifest.forget import _of_experiments
from pipelines.synthetic.evaluate import EvaluationConfig
from pipelines.synthetic.prompts import PromptsConfig
from schemas.errors import UsageError
from schemas.language import parse
from schemas.manifest import MANIFEST
from schemas.store import Store
from tests.trainer import experiment_root

Capture = pytest.CaptureFixture[str]
COMMON = ("--recipe", "tiny", "--steps", "3")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    experiment_root.make(folder)
    return folder


def experiment(capsys: Capture, root: Path, *words: str) -> tuple[int, str, str]:
    """Run `dailies experiment`; returns its exit code, standard output and standard error."""
    try:
        code = cli.main(["experiment", *words, "--root", str(root), *COMMON])
    except SystemExit as e:  # argparse
        code = int(e.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def check_interval(found: dict[str, Any], n: int) -> None:
    assert found["n"] == n
    assert found["low"] <= found["value"] <= found["high"]


def test_captions(capsys: Capture, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("captions", "--prompts", "3", "--arms", "human-short,blend-95,short-95", "--seeds", "2", "--json")
    out = tmp_path / "copy"
    code, answer, err = experiment(capsys, root, *words, "--out", str(out))
    assert code == 0
    report = json.loads(answer)
    assert [a["name"] for a in report["arms"]] == ["human-short", "dense-95", "short-95"]
    assert "arm 6 of 6: short-95" in err
    for arm in report["arms"]:
        assert arm["seeds"] == [0, 1]
        assert arm["cpu_s"]["training"] > 0
        for style in ("short", "dense"):
            assert set(arm["alignment"][style]) == {*NAMED[style], "all"}
            check_interval(arm["alignment"][style]["all"], 3)
            check_interval(arm["against_first"][style], 3)
    assert report["arms"][0]["against_first"]["short"]["value"] == 0
    assert report["arms"][0]["captions_read"].keys() <= {"human", "none"}
    assert report["human_texts"] == {"source": 7}
    assert (report["manifest"], report["threads"], report["clips"]) == ("manifest0", 1, 7)
    assert report["machine"]["cores"]
    folder = root / "experiments" / "captions"
    for file in ("report.json", "report.md", "plot.png", "sheet.jpg"):
        assert (folder / file).read_bytes() == (out / file).read_bytes()
    with Image.open(folder / "plot.png") as picture:
        assert picture.size == (980, 460)
    text = (folder / "report.md").read_text()
    shown = report["arms"][1]["alignment"]["dense"]["all"]
    assert f"{shown['value']:.3f} [{shown['low']:.3f}, {shown['high']:.3f}]" in text
    assert any("DALL-E 3's finding" in line for line in report["came_out"])
    for made in ("trainer.experiments.training.build", "trainer.experiments.sampling.load_generator"):
        monkeypatch.setattr(made, lambda *a, **k: pytest.fail("made again"))
    _, again, _ = experiment(capsys, root, *words)
    assert json.loads(again)["arms"] == report["arms"]


def test_scaling(capsys: Capture, root: Path) -> None:
    words = ("scaling", "--prompts", "3", "--factors", "1,3", "--holdout", "0.5", "--clips", "3", "--json")
    code, answer, _ = experiment(capsys, root, *words)
    assert code == 0
    report = json.loads(answer)
    small, large = report["arms"]
    assert (small["steps"], large["steps"]) == (3, 9)
    assert large["flops"] == pytest.approx(3 * small["flops"], rel=0.1)
    for arm in (small, large):
        check_interval(arm["validation_loss"], 3)
        check_interval(arm["alignment"]["dense"]["all"], 3)
        assert len(arm["loss_by_level"]) == 5
        assert arm["clips"] < report["clips"]
    check_interval(report["between_neighbours"][0], 3)
    gain = large["validation_loss"]["value"] - small["validation_loss"]["value"]
    assert report["between_neighbours"][0]["value"] == pytest.approx(gain, abs=1e-5)
    folder = root / "experiments" / "scaling"
    assert {p.name for p in folder.iterdir()} == {"report.json", "report.md", "plot.png", "sheet.jpg"}
    assert len(report["came_out"]) == 1


@pytest.mark.parametrize("what", ["captions", "scaling", "framing", "filters"])
def test_a_dry_run_says_what_it_would_take_and_trains_nothing(
    capsys: Capture, root: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("trainer.experiments.training.build", lambda *a, **k: pytest.fail("trained"))
    more = {"scaling": ["--holdout", "0.5"], "filters": ["--holdout", "0.5", "--arm", "a=true"]}.get(what, [])
    code, answer, _ = experiment(capsys, root, what, "--dry-run", "--seed", "7", "--json", *more)
    assert code == 0
    arms = json.loads(answer)["arms"]
    assert [a["name"] for a in arms][:1] == [
        {"captions": "human-short", "scaling": "1x", "framing": "native"}.get(what, "all")
    ]
    assert all(a["flops"] > 0 and a["videos"] > 0 and not a["trained_already"] and a["seed"] == 7 for a in arms)
    assert json.loads(answer)["seconds_left"] >= 0


def test_a_manifest_without_captions_is_refused(capsys: Capture, root: Path, tmp_path: Path) -> None:
    copied = tmp_path / "root"
    shutil.copytree(root / "tables", copied / "tables")
    store = Store(copied)
    rows = [{**r, "short": "", "dense": ""} for r in store.read(MANIFEST).to_pylist()]
    store.commit(MANIFEST, pa.Table.from_pylist(rows, schema=MANIFEST.schema), inputs="test")
    code, out, err = experiment(capsys, copied, "captions")
    assert (code, out) == (2, "")
    assert "no caption" in err


def test_filters(capsys: Capture, root: Path) -> None:
    words = ("filters", "--prompts", "3", "--holdout", "0.5", "--clips", "3", "--json")
    code, answer, err = experiment(capsys, root, *words, "--arm", "wide=width > height AND short <> ''")
    assert code == 0
    report = json.loads(answer)
    every, wide = report["arms"]
    assert (every["name"], every["where"], report["compared_with"]) == ("all", "true", "all")
    assert every["clips"] == report["clips_to_train_on"] > wide["clips"] > 0
    assert f"wide ({wide['clips']} of {every['clips']} clips: width > height AND short <> '')" in err
    for arm in (every, wide):
        check_interval(arm["validation_loss"], 3)
        check_interval(arm["loss_against_first"], 3)
        check_interval(arm["alignment"]["dense"]["all"], 3)
    assert wide["seconds_of_footage"] < every["seconds_of_footage"]
    store = Store(root)
    held = set(store.read(MANIFEST)["clip_id"].to_pylist())
    for arm in (every, wide):
        (key,) = arm["keys"]
        ledger = pq.read_table(root / "experiments" / "arms" / key / "ledger.parquet")
        held -= set(ledger["clip_id"].to_pylist())
    looked = pq.read_table(root / "experiments" / "arms" / key / "validation.parquet")
    assert set(looked["clip_id"].to_pylist()) <= held
    with Image.open(root / "experiments" / "filters" / "plot.png") as picture:
        assert picture.size == (980, 920)
    assert len(report["came_out"]) == 1


def test_framing(capsys: Capture, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("framing", "--prompts", "3", "--clips", "4", "--json")
    code, answer, _ = experiment(capsys, root, *words)
    assert code == 0
    report = json.loads(answer)
    native, square = report["arms"]
    assert native["clips"] == square["clips"] == report["clips"]
    assert set(native["generated"]) == {"native shape", "square"}
    assert set(square["generated"]) == {"square"}
    for arm in (native, square):
        for share in (*arm["generated"].values(), arm["training_data"]):
            assert 0 <= share["whole"]["value"] <= share["frames_whole"]["value"] <= share["frames_seen"]["value"] <= 1
            assert share["whole_wilson"]["high"] > share["whole_wilson"]["low"]
        check_interval(arm["training_data"]["whole"], 4)
    for name in ("each at its own shape", "both at squares"):
        check_interval(report["native_minus_square"][name]["whole"], 3)
    check_interval(report["native_minus_square"]["training data"]["whole_of_seen"], 4)
    store = Store(root)
    ledgers = [
        pq.read_table(root / "experiments" / "arms" / arm["keys"][0] / "ledger.parquet") for arm in (native, square)
    ]
    first = [{r["clip_id"]: r for r in reversed(table.to_pylist())} for table in ledgers]
    both = first[0].keys() & first[1].keys()
    assert both
    assert all(
        first[0][c]["caption"] == first[1][c]["caption"] for c in both if first[0][c]["epoch"] == first[1][c]["epoch"]
    )
    shards = store.fs.glob(store.at("experiments", "latents", "*", "*.safetensors"))
    assert shards
    monkeypatch.setattr("trainer.experiments.squares.loaded", lambda *a: pytest.fail("encoded again"))
    _, again, _ = experiment(capsys, root, *words)
    assert json.loads(again)["arms"] == report["arms"]


def test_an_arm_alone_is_compared_with_every_clip() -> None:
    assert filters.parse(["a=x = 1"]) == {"all": "true", "a": "x = 1"}
    assert filters.parse(["a=x", "b=y"]) == {"a": "x", "b": "y"}
    assert filters.parse(["all=true"]) == {"all": "true"}


def test_footage_that_is_not_rendered_is_not_judged(
    capsys: Capture, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.checkpoint.knows_of", lambda *a: "footage")
    code, _, err = experiment(capsys, root, "captions", "--prompts", "2")
    assert code == 2
    assert "`experiment scaling`, which reads losses alone" in err
    common = ("--prompts", "2", "--holdout", "0.5", "--clips", "2", "--json")
    code, answer, _ = experiment(capsys, root, "filters", "--arm", "some=true", "--arm", "wide=width > height", *common)
    assert code == 0
    assert not any("alignment" in a for a in json.loads(answer)["arms"])
    assert not (root / "experiments" / "filters" / "sheet.jpg").exists()
    code, answer, _ = experiment(capsys, root, "scaling", "--factors", "1,2", *common)
    assert code == 0
    assert not any("alignment" in a for a in json.loads(answer)["arms"])
    assert (root / "experiments" / "scaling" / "sheet.jpg").exists()


def test_forgetting_a_video_names_the_arms_that_saw_it(capsys: Capture, root: Path) -> None:
    experiment(capsys, root, "captions", "--prompts", "2", "--arms", "human-short,dense-95")
    found = _of_experiments(Store(root), pa.array(["clip0"]))
    assert any(name.startswith("experiments/arms/") for name in found)
    assert _of_experiments(Store(root), pa.array(["no such clip"])) == []


def test_the_exponent_is_the_slope_on_logarithmic_axes() -> None:
    flops = [1e12, 4e12, 1.6e13]
    assert exponent(flops, [2.0 * f**-0.07 for f in flops]) == pytest.approx(-0.07)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["filters", "--arm", "odd"], 'takes NAME="SQL condition"'),
        (["filters", "--arm", "a=true", "--arm", "a=false"], "given twice"),
        (["filters", "--arm", "a=no_such > 1"], "`--arm a` = `no_such > 1`"),
        (["filters", "--arm", "a=true); DROP TABLE manifest; --"], "`--arm a`"),
        (["filters", "--arm", "a=width > 9000", "--holdout", "0.5"], "none of the"),
        (["filters"], "required: --arm"),
        (["scaling", "--factors", "4,1"], "rising numbers"),
        (["scaling", "--factors", "one,two"], "whole numbers"),
        (["scaling", "--holdout", "0.001"], "leaves 0 of 7 clips"),
        (["scaling", "--holdout", "1"], "between 0 and 1"),
        (["captions", "--arms", "human-short,dnse-95"], "did you mean `dense-95`"),
        (["captions", "--arms", "dense-95,blend-95"], "at least two"),
        (["captions", "--prompts", "1"], "--prompts is at least 2"),
        (["captions", "--steps", "0"], "at least 1"),
        (["captions", "--name", "../up"], "--name is letters"),
        (["captions", "--dit", "dmo"], "did you mean `demo`"),
    ],
)
def test_what_cannot_be_is_one_line(capsys: Capture, root: Path, words: list[str], says: str) -> None:
    try:
        code = cli.main(["experiment", *words[:1], "--root", str(root), *COMMON, *words[1:]])
    except SystemExit as e:
        code = int(e.code or 0)
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert says in err


def test_a_root_that_lacks_something_says_what_makes_it(capsys: Capture, tmp_path: Path) -> None:
    store = Store(tmp_path).create()
    assert "holds no tables" in experiment(capsys, tmp_path, "captions")[2]
    store.commit(MANIFEST, MANIFEST.empty())
    code, _, err = experiment(capsys, tmp_path, "captions")
    assert code == 2
    assert "has no table `autoencoder_checkpoint`: run `dailies train autoencoder" in err


def test_clips_without_human_texts_are_left_out_and_none_at_all_is_refused(root: Path) -> None:
    store = Store(root)
    rows = store.read(MANIFEST).to_pylist()
    rows[0]["human"] = ""
    told = with_human(store, rows, EvaluationConfig())
    assert told.origins == {"source": len(rows) - 1, "none": 1}
    assert len(told.rows) == len(rows) - 1
    with pytest.raises(UsageError, match="put sidecars"):
        with_human(store, [{**r, "human": ""} for r in rows], EvaluationConfig())


def test_rendered_clips_take_their_own_shot_from_the_truth_and_not_the_files_first(house: Path) -> None:
    store = Store(house)
    rows = store.read(MANIFEST).to_pylist()
    told = with_human(store, rows, EvaluationConfig())
    assert set(told.origins) == {"truth", "none"}  # some files are damaged
    assert told.origins["truth"] == len(told.rows) > len(rows) / 2
    by_source: dict[str, set[str]] = {}
    for r in told.rows:
        by_source.setdefault(r["source"], set()).add(r["human"])
    assert any(len(texts) > 1 for texts in by_source.values())
    assert all(parse(r["human"]).background == "" for r in told.rows)


def test_prompts_are_the_same_scene_in_two_wordings() -> None:
    found = asked(PromptsConfig(), 6, 0)
    assert [w.style for w in found.wanted] == ["short", "dense"] * 6
    for short, dense in zip(found.wanted[::2], found.wanted[1::2]):
        assert (short.prompt_id, short.seed, short.width) == (dense.prompt_id, dense.seed, dense.width)
        wanted = found.attributes[short.prompt_id]
        (main,) = parse(short.prompt).subjects
        assert {k: getattr(main, k) for k in NAMED["short"]} == {k: wanted[k] for k in NAMED["short"]}
        assert parse(dense.prompt).background == wanted["background"]
        assert parse(short.prompt).background == ""


def test_only_what_a_prompt_names_counts() -> None:
    wanted = {"p": {"color": "red", "shape": "star", "motion": "still", "background": "sand", "camera": "static"}}
    seen = {"color": "red", "shape": "star", "motion": "moving up", "background": "grass"}
    samples = [{"prompt_id": "p", "style": style, "seen": seen} for style in ("short", "dense")]
    short, dense = (right(samples, wanted, style) for style in ("short", "dense"))
    assert short == {"color": [1.0], "shape": [1.0], "motion": [0.0], "all": [pytest.approx(2 / 3)]}
    assert dense["all"] == [pytest.approx(2 / 5)]


def test_charts_draw_intervals_where_they_are() -> None:
    def picture(low: float, high: float) -> Image.Image:
        points = [{"value": 0.5, "low": low, "high": high}]
        return Image.open(io.BytesIO(plot.bars("A title", ["arm"], [plot.Series("series", points, 0.2)])))

    narrow, wide = picture(0.45, 0.55), picture(0.1, 0.9)
    assert narrow.size == wide.size
    assert narrow.tobytes() != wide.tobytes()
    assert plot.ticks(0.0, 1.0, log=False)[-1] == pytest.approx(1.0)
    assert plot.ticks(1.0, 100.0, log=True) == [1, 2, 5, 10, 20, 50]
