"""The CLIP in use: trained here, saved in open_clip's own format, loaded by open_clip; and what it scores."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.clip.embed import CAPTION_SCORES_STAGE, EMBEDDINGS_STAGE, score_caption
from pipelines.clip.heads import read_head
from pipelines.clip.model import AESTHETIC, CLIP_MODEL_STAGE, WEIGHTS, ClipConfig, sentences
from pipelines.clip.scores import EmbedConfig
from pipelines.config import CurationConfig
from pipelines.execute import run_stage
from pipelines.policy.rules import Rule, judge
from pipelines.policy.verdicts import ONLY_SYNTHETIC
from pipelines.scan.stage import SCAN_STAGE
from pipelines.scorers.clip import CLIP_OUTPUTS, SCORE_AESTHETIC, SCORE_CLIP, SCORE_SIDECAR, SCORE_UNSAFE
from pipelines.shots.stage import SHOTS_STAGE
from schemas import batches
from schemas.captions import SYNTHETIC_PAIRS, Fields, Pair, Subject
from schemas.checkpoints import CLIP_CHECKPOINT
from schemas.clips import CLIPS
from schemas.errors import MissingTable, ModelError
from schemas.scores import EMBEDDINGS
from schemas.store import Store
from schemas.verdicts import Verdict
from schemas.videos import VIDEOS
from tests.videos import make_video, shot

TINY = ClipConfig(steps=60, batch_size=4, image_size=32, patch_size=8, width=32, layers=1, text_width=32, text_layers=1)
COLORS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220), "white": (240, 240, 240)}


def jpeg(color: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((36, 64, 3), color, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def pair(name: str, split: str) -> Pair:
    return Pair(
        pair_id=f"{split}-{name}",
        split=split,
        frames=[jpeg(COLORS[name])] * 2,
        times_s=[0.0, 0.5],
        width=64,
        height=36,
        short=f"A {name} wall.",
        dense=f"A {name} wall. It is {name}.",
        fields=Fields(subjects=[Subject(shape="wall", color=name)], events=[]),
        source="synthetic",
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("clip")).create()
    pairs = [pair(c, s) for c in COLORS for s in ("train", "held_out")]
    store.commit(SYNTHETIC_PAIRS, SYNTHETIC_PAIRS.from_rows(pairs))
    run_stage(CLIP_MODEL_STAGE, store, CurationConfig(clip=TINY))
    return store


def test_it_learns_and_is_loaded_by_open_clip_itself(trained: Store) -> None:
    import open_clip
    import torch

    row = trained.read(CLIP_CHECKPOINT).to_pylist()[0]
    assert (row["knows"], row["steps"]) == ("synthetic", 60)
    assert json.loads(row["metrics"])["held_out_top1"] == 1.0
    name = f"local-dir:{trained.fetch(row['path'])}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    with torch.inference_mode():
        image = model.eval().encode_image(preprocess(Image.open(io.BytesIO(jpeg(COLORS["red"]))))[None], normalize=True)
        text = model.encode_text(open_clip.get_tokenizer(name)([f"A {c} wall." for c in COLORS]), normalize=True)
    assert list(COLORS)[int((image @ text.T).argmax())] == "red"


def test_the_same_pairs_give_the_same_weights(trained: Store, tmp_path: Path) -> None:
    store = Store(tmp_path).create()
    store.commit(SYNTHETIC_PAIRS, trained.read(SYNTHETIC_PAIRS))
    run_stage(CLIP_MODEL_STAGE, store, CurationConfig(clip=TINY))
    assert store.read(CLIP_CHECKPOINT).equals(trained.read(CLIP_CHECKPOINT))


def test_without_pairs_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(MissingTable, match="stage synthetic_pairs"):
        run_stage(CLIP_MODEL_STAGE, Store(tmp_path).create(), CurationConfig())


def test_a_model_that_is_not_there_is_said_with_the_remedy(tmp_path: Path) -> None:
    config = CurationConfig(clip=ClipConfig(model=f"local-dir:{tmp_path / 'nowhere'}"))
    with pytest.raises(ModelError, match=r"does not load.*clip.model=none"):
        run_stage(CLIP_MODEL_STAGE, Store(tmp_path / "r").create(), config)


def test_a_named_folder_is_used_without_training(trained: Store, tmp_path: Path) -> None:
    folder = trained.fetch(trained.read(CLIP_CHECKPOINT)["path"][0].as_py())
    store = Store(tmp_path).create()
    run_stage(CLIP_MODEL_STAGE, store, CurationConfig(clip=ClipConfig(model=f"local-dir:{folder}")))
    row = store.read(CLIP_CHECKPOINT).to_pylist()[0]
    assert (row["knows"], row["steps"]) == ("general", 0)


def _scanned(trained: Store, tmp_path: Path, kind: str = batches.FOOTAGE) -> Store:
    store = Store(tmp_path / "root").create()
    make_video(tmp_path / "f" / "a.mp4", shot(1, 30) + shot(2, 30))
    (tmp_path / "f" / "words.csv").write_text("path,text\na.mp4,A red wall. A blue wall.\n")
    batches.register(store, batches.Batch(name="one", folder=str(tmp_path / "f"), kind=kind))
    row = trained.read(CLIP_CHECKPOINT)
    path = row["path"][0].as_py()
    store.write_bytes(trained.read_bytes(path, WEIGHTS), path, WEIGHTS)
    for name in ("open_clip_config.json", AESTHETIC):
        store.write_bytes(trained.read_bytes(path, name), path, name)
    store.commit(CLIP_CHECKPOINT, row)
    from pipelines.ingest import VIDEOS_STAGE

    for stage in (VIDEOS_STAGE, SCAN_STAGE, SHOTS_STAGE):
        run_stage(stage, store, CurationConfig(), batch="one")
    assert store.read(VIDEOS, batch="one").num_rows == 1
    return store


def test_clips_get_unit_vectors_and_a_note_where_clip_does_not_know_the_footage(trained: Store, tmp_path: Path) -> None:
    store = _scanned(trained, tmp_path)
    result = run_stage(EMBEDDINGS_STAGE, store, CurationConfig(), batch="one")
    assert result.metrics["note"] == ONLY_SYNTHETIC
    rows = store.read(EMBEDDINGS, batch="one").to_pylist()
    assert len(rows) == store.read(CLIPS, batch="one").num_rows == 2
    assert all(abs(np.linalg.norm(r["embedding"]) - 1) < 1e-4 for r in rows)
    assert all(
        -1 <= r["first_to_last"] <= 1 and not r["error"] for r in store.read(SCORE_CLIP, batch="one").to_pylist()
    )


def _scores(store: Store, config: EmbedConfig, table: Any) -> list[dict[str, Any]]:
    run_stage(EMBEDDINGS_STAGE, store, CurationConfig(embed=config), batch="one")
    return store.read(table, batch="one").to_pylist()


def test_a_clip_that_knows_the_footage_scores_beauty_safety_and_the_sources_own_text(
    trained: Store, tmp_path: Path
) -> None:
    store = _scanned(trained, tmp_path, batches.SYNTHETIC)
    found = {t.name: _scores(store, EmbedConfig(), t) for t in CLIP_OUTPUTS}
    assert {name: len(rows) for name, rows in found.items()} == dict.fromkeys((t.name for t in CLIP_OUTPUTS), 2)
    assert all(not r["error"] for rows in found.values() for r in rows)
    assert all(r["least"] <= r["mean"] for r in found["score_aesthetic"])
    assert all(-1 <= r["best"] <= 1 for r in found["score_sidecar"])
    assert all(-1 <= r["score"] <= 1 for r in found["score_unsafe"])
    assert _scores(store, EmbedConfig(aesthetic="off"), SCORE_AESTHETIC) == []


def test_a_head_by_path_takes_the_place_of_ours_and_its_bytes_decide(trained: Store, tmp_path: Path) -> None:
    import torch

    store, path = _scanned(trained, tmp_path, batches.SYNTHETIC), tmp_path / "head.pth"
    seen = []
    for level in (4.0, 6.0):
        torch.save({"weight": torch.zeros(1, 32), "bias": torch.tensor([level])}, path)
        seen.append({r["mean"] for r in _scores(store, EmbedConfig(aesthetic=str(path)), SCORE_AESTHETIC)})
    assert seen == [{4.0}, {6.0}]


def brightness(frames: list[Any]) -> float:
    """A plug-in."""
    return float(np.mean(frames) / 255)


def broken(frames: list[Any]) -> float:
    """A plug-in that fails."""
    raise RuntimeError("no licence")


def test_a_plug_in_judges_safety_where_clip_cannot(
    trained: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _scanned(trained, tmp_path)
    monkeypatch.setitem(sys.modules, "plugs", sys.modules[__name__])
    assert _scores(store, EmbedConfig(), SCORE_UNSAFE) == []
    rows = _scores(store, EmbedConfig(unsafe_by="plugs:brightness"), SCORE_UNSAFE)
    assert all(0.1 < r["score"] < 0.9 for r in rows)
    rows = _scores(store, EmbedConfig(unsafe_by="plugs:broken"), SCORE_UNSAFE)
    assert [(r["score"], r["error"]) for r in rows] == [(None, "RuntimeError: no licence")] * 2
    assert len(_scores(store, EmbedConfig(unsafe_by="plugs:broken"), SCORE_CLIP)) == 2


def test_a_clip_without_a_text_is_passed_by_and_one_with_a_poor_one_is_not() -> None:
    rule = Rule(name="off_topic", column=f"{SCORE_SIDECAR.name}.best", min=0.2, reason="not what its text says")
    known: list[dict[str, float | None]] = [{}, {rule.column: 0.1}, {rule.column: None}]
    words = [judge("c", scores, (rule,), {}, "m")[0].verdict for scores in known]
    assert words == [Verdict.SKIPPED, Verdict.REJECT, Verdict.ERROR]


def test_the_head_of_the_synthetic_world_says_how_well_it_does(trained: Store) -> None:
    row = trained.read(CLIP_CHECKPOINT).to_pylist()[0]
    assert 0 <= json.loads(row["metrics"])["aesthetic_auc"] <= 1
    assert read_head(f"{trained.fetch(row['path'])}/{AESTHETIC}", 32).dim == 32


def test_a_checkpoint_that_is_gone_stops_the_stage_with_the_remedy(trained: Store, tmp_path: Path) -> None:
    import shutil

    store = _scanned(trained, tmp_path)
    shutil.rmtree(store.at("checkpoints"))
    with pytest.raises(ModelError, match="clip_model"):
        run_stage(EMBEDDINGS_STAGE, store, CurationConfig(), batch="one")


def test_caption_scores_are_read_sentence_by_sentence() -> None:
    clip = np.array([1.0, 0.0])
    short, dense = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    assert score_caption(clip, short, dense) == (1.0, 0.5, 0.0)
    assert score_caption(clip, short[:0], dense[:0]) == (None, None, None)
    assert CAPTION_SCORES_STAGE.writes[0].name == "caption_scores"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("One.", ["One."]),
        ("One. Two! Three", ["One.", "Two!", "Three"]),
        (" A 2.39 shot. ", ["A 2.39 shot."]),
    ],
)
def test_captions_split_into_sentences(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts
