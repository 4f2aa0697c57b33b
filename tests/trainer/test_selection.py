"""Which rows are trained on: each is in one list or the other, and a dry run says so before anything is spent."""

import json
from pathlib import Path

import numpy as np
import pytest

from orchestration import cli
from pipelines.execute import run_stage
from schemas.errors import ConfigError, ModelError
from schemas.ledger import LEDGER, SKIPPED
from schemas.manifest import MANIFEST
from schemas.settings import override
from schemas.store import Store
from tests.trainer.small_world import make_root
from trainer.config import DitSettings
from trainer.dit_stage import selected
from trainer.dry_run import as_text, forecast
from trainer.flops import forward_flops, step_flops
from trainer.model.config import SIZES, ModelConfig
from trainer.recipes import tiny
from trainer.selection import choose, meets
from trainer.stages import AUTOENCODER, DIT, LATENTS_STAGE

TINY = ["--recipe", "tiny"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = make_root(tmp_path_factory.mktemp("root"))
    for stage in (AUTOENCODER, LATENTS_STAGE):
        run_stage(stage, made, tiny())
    return made


def settings(*changes: str) -> DitSettings:
    config = override(tiny(), changes)
    return DitSettings(dit=config.dit, shape=config.shape)


def test_every_row_is_chosen_or_skipped_with_a_reason(store: Store) -> None:
    rows, skipped = selected(store, settings())
    names = set(store.read(MANIFEST)["clip_id"].to_pylist())
    assert {r["clip_id"] for r in rows} | set(skipped) == names
    assert not {r["clip_id"] for r in rows} & set(skipped)
    assert skipped == {"clip5": "latent skipped: clip file blobs/clips/clip5.mp4 is missing"}


def test_a_condition_takes_a_part_and_the_rest_says_why(store: Store) -> None:
    rows, skipped = selected(store, settings("dit.where=width > height AND num_frames > 1"))
    manifest = {r["clip_id"]: r for r in store.read(MANIFEST).to_pylist()}
    assert rows
    assert all(manifest[r["clip_id"]]["width"] > manifest[r["clip_id"]]["height"] for r in rows)
    assert skipped["clip6"] == "does not meet `width > height AND num_frames > 1`"


def test_a_condition_can_hold_a_combination_back(store: Store) -> None:
    """What `pipelines/synthetic/combinations.py` tells its readers to write."""
    shown = store.read(MANIFEST)
    subjects = [{"color": s["color"], "shape": s["shape"]} for r in shown["fields"].to_pylist() for s in r["subjects"]]
    back = f"{subjects[0]['color']} {subjects[0]['shape']}"
    kept = meets(shown, f"NOT list_has_any([s.color || ' ' || s.shape for s in fields.subjects], ['{back}'])")
    held = {
        r["clip_id"]
        for r in shown.to_pylist()
        if back in [f"{s['color']} {s['shape']}" for s in r["fields"]["subjects"]]
    }
    assert held
    assert kept == set(shown["clip_id"].to_pylist()) - held


@pytest.mark.parametrize(
    "where",
    [
        "widht > 3",
        "1=1); DROP TABLE manifest; --",
        "clip_id IN (SELECT content FROM read_text('/etc/passwd'))",
        "true) UNION SELECT 'x' FROM read_csv('/etc/passwd') WHERE (true",
        "",
    ],
)
def test_a_condition_that_is_none_or_reads_files_is_refused(store: Store, where: str) -> None:
    with pytest.raises(ConfigError, match=r"dit\.where"):
        meets(store.read(MANIFEST), where)


def test_another_manifest_than_the_expected_is_refused(store: Store) -> None:
    assert selected(store, settings("dit.manifest=manifest"))[0]
    with pytest.raises(ConfigError, match="asked for manifest `beef`, and this root's current one is `manifest0`"):
        selected(store, settings("dit.manifest=beef"))


def test_what_a_run_left_out_is_a_table_and_with_the_ledger_it_is_the_manifest(store: Store) -> None:
    run_stage(DIT, store, override(tiny(), ["dit.where=height >= width", "dit.optimizer.steps=2"]))
    names = set(store.read(MANIFEST)["clip_id"].to_pylist())
    trained = set(store.read(LEDGER)["clip_id"].to_pylist())
    left = {r["clip_id"]: r["reason"] for r in store.read(SKIPPED).to_pylist()}
    assert trained
    assert trained | set(left) == names
    assert not trained & set(left)
    assert all(left.values())


@pytest.mark.parametrize(("images", "share"), [(0, 0.0), (1, 0.0), (0, 0.5), (1, 0.5)])
def test_the_dry_run_says_what_the_run_then_does(store: Store, images: int, share: float) -> None:
    changes = [f"dit.plan.image_epochs={images}", f"dit.plan.image_share={share}"]
    wanted = settings(*changes)
    found = forecast(*selected(store, wanted), wanted)
    result = run_stage(DIT, store, override(tiny(), changes))
    ledger = store.read(LEDGER)
    of_images = {r["step"] for r in ledger.to_pylist() if r["epoch"] < images}
    assert found.image_steps == len(of_images)
    assert bool(of_images) == bool(images)
    seen = [r["task"] == "text_to_image" for r in ledger.to_pylist()]
    assert found.image_visits == pytest.approx(np.mean(seen), abs=1e-4)
    assert bool(found.image_visits) == bool(images or share) == ("images  " in as_text(found))
    assert (found.rows, len(found.skipped)) == (result.metrics["rows"], result.metrics["rows_left_out"])
    assert found.parameters == result.metrics["parameters"]
    assert found.fill == result.metrics["fill"]
    assert found.epochs == pytest.approx(ledger.num_rows / found.rows, abs=0.01)
    assert found.tokens == sum(r["tokens"] for r in selected(store, wanted)[0])
    assert found.state_bytes == 20 * found.parameters


def test_nothing_to_train_on_is_refused_with_the_reasons(store: Store) -> None:
    wanted = settings("dit.where=width > 9999")
    with pytest.raises(ModelError, match=r"nothing to train on: every manifest row was left out \(7 x does not meet"):
        forecast(*selected(store, wanted), wanted)
    with pytest.raises(ModelError, match="the manifest is empty"):
        forecast(*choose(store.read(MANIFEST).slice(0, 0), []), wanted)


def test_the_command_prints_one_object_and_writes_nothing(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(p for p in Path(store.path).rglob("*") if p.is_file())
    words = ["train", "dit", "--dry-run", "--root", store.path, *TINY, "--where", "height >= width", "--json"]
    assert cli.main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] + len(found["skipped"]) == 7
    assert found["padding_tokens"] == 0
    assert found["flops"] == pytest.approx(found["flops_per_step"] * found["steps"])
    assert sorted(p for p in Path(store.path).rglob("*") if p.is_file()) == before
    assert cli.main(["train", "dit", "--dry-run", "--root", store.path, *TINY, "--where", "no such column"]) == 2
    assert "columns: clip_id" in capsys.readouterr().err


def test_flops_by_hand_for_one_sample() -> None:
    config = ModelConfig(size="nano")
    depth, width, _ = SIZES["nano"]
    tokens, words, channels, text = 10, 3, 8, 24
    block = 2 * tokens * width * width * 4  # queries, keys, values, out
    block += 2 * tokens * width * width * 2 + 2 * words * text * 2 * width  # cross: queries and out; keys and values
    block += 2 * tokens * width * 4 * width * 2  # MLP
    block += 2 * 2 * tokens * tokens * width + 2 * 2 * tokens * words * width  # scores and sums
    block += 2 * 2 * width * 6 * width  # modulation of two rows
    whole = depth * block + 2 * 2 * tokens * channels * width
    assert forward_flops([(tokens, words)], config, channels, text) == whole
    assert step_flops([(tokens, words)] * 2, config, channels, text) == 6 * whole
