"""Curation from a folder to clip files, on small videos of known truth, with nothing lost on the way."""

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import pipelines.signal_scores
from pipelines.clip_files import CLIP_FILES_STAGE
from pipelines.config import CurationConfig
from pipelines.dedup.fingerprints import FINGERPRINTS_STAGE
from pipelines.dedup.stage import DUPLICATES_STAGE
from pipelines.execute import Result, Stage, run_stage
from pipelines.ingest import VIDEOS_STAGE
from pipelines.manifest.stage import MANIFEST_STAGE, aspect
from pipelines.policy import whatif
from pipelines.policy.rules import PolicyConfig
from pipelines.policy.verdicts import VERDICTS_STAGE
from pipelines.scan.stage import SCAN_STAGE
from pipelines.shots.boundaries import BoundaryConfig
from pipelines.shots.spans import SpanConfig
from pipelines.shots.stage import SHOTS_STAGE, ShotsConfig
from pipelines.signal_scores import SIGNAL_SCORES_STAGE
from pipelines.stages import STAGES
from schemas import batches
from schemas.captions import CAPTIONS, Caption, Fields, Subject
from schemas.clips import CLIP_FILES, CLIPS
from schemas.errors import FootageError, MissingTable
from schemas.manifest import MANIFEST
from schemas.scores import DUPLICATES
from schemas.store import Store
from schemas.verdicts import SELECTIONS, VERDICTS
from schemas.videos import FRAMES, SCANS, SIGNALS, VIDEOS
from tests.videos import decode_all, make_video, shot, textured

RULES = ("too_short.min=1.0", "static.min=0.01", "text=off", "watermark=off", "blur=off")
CONFIG = CurationConfig(policy=PolicyConfig(bounds=RULES))
CHAIN = (
    VIDEOS_STAGE,
    SCAN_STAGE,
    SHOTS_STAGE,
    SIGNAL_SCORES_STAGE,
    FINGERPRINTS_STAGE,
    DUPLICATES_STAGE,
    VERDICTS_STAGE,
    CLIP_FILES_STAGE,
)


def footage(folder: Path) -> Path:
    """Two shots, an exact copy, the same first shot once more and smaller, a still shot, and rubbish."""
    make_video(folder / "a.mp4", shot(1, 40) + shot(2, 35))
    shutil.copy(folder / "a.mp4", folder / "b_copy.mp4")
    smaller = [np.asarray(Image.fromarray(f).resize((120, 72), Image.Resampling.BOX)) for f in shot(1, 40)]
    make_video(folder / "c.mkv", smaller)
    make_video(folder / "sub" / "d.mp4", [textured(3)] * 40)
    (folder / "e.mp4").write_bytes(b"no video at all")
    (folder / "a.json").write_text(json.dumps({"text": "two pans", "licence": "CC0-1.0"}))
    (folder / "_SUCCESS").write_bytes(b"")
    return folder


def curate(root: Path, folder: Path, config: CurationConfig = CONFIG, **options: Any) -> list[Result]:
    store = Store(root).create()
    batches.register(store, batches.Batch(name="one", folder=str(folder), kind=batches.FOOTAGE))
    return curate_only(root, config, CHAIN, **options)


def curate_only(root: Path, config: CurationConfig, stages: Sequence[Stage], **options: Any) -> list[Result]:
    return [run_stage(s, Store(root), config, batch="one" if s.partitioned else None, **options) for s in stages]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path, list[Result]]:
    base = tmp_path_factory.mktemp("curation")
    folder = footage(base / "footage")
    return Store(base / "root"), folder, curate(base / "root", folder)


def rows(store: Store, table: Any) -> list[dict[str, Any]]:
    return store.read(table, batch="one" if table.partitioned else None).to_pylist()


def test_every_file_is_a_row_and_every_bad_one_has_a_reason(done: tuple[Store, Path, list[Result]]) -> None:
    found = {r["path"]: r for r in rows(done[0], VIDEOS)}
    assert sorted(found) == ["a.mp4", "b_copy.mp4", "c.mkv", "e.mp4", "sub/d.mp4"]
    assert (found["b_copy.mp4"]["duplicate_of"], found["a.mp4"]["duplicate_of"]) == ("a.mp4", None)
    assert (found["e.mp4"]["status"], bool(found["e.mp4"]["reason"])) == ("unreadable", True)
    assert (found["a.mp4"]["text"], found["a.mp4"]["licence"]) == ("two pans", "CC0-1.0")


def test_each_unique_source_is_scanned_once_and_lands_in_one_row(done: tuple[Store, Path, list[Result]]) -> None:
    scans = rows(done[0], SCANS)
    assert Counter(s["decode_passes"] for s in scans) == {1: 3, 0: 1}
    assert len(scans) == 4
    assert {s["status"] for s in scans} == {"ok", "unreadable"}


def test_signals_and_proxies_agree_with_the_frames(done: tuple[Store, Path, list[Result]]) -> None:
    frames = {s["video_id"]: s["num_frames"] for s in rows(done[0], SCANS)}
    for row in rows(done[0], SIGNALS):
        assert {len(v) for v in row.values() if isinstance(v, list)} == {frames[row["video_id"]]}
    for video_id in frames:
        proxies = [r["frame_index"] for r in rows(done[0], FRAMES) if r["video_id"] == video_id]
        if frames[video_id]:
            assert {0, frames[video_id] - 1} <= set(proxies)


def test_the_smaller_twin_is_dropped_and_the_pair_is_written_down(done: tuple[Store, Path, list[Result]]) -> None:
    (pair,) = rows(done[0], DUPLICATES)
    clips = {c["clip_id"]: c for c in rows(done[0], CLIPS)}
    assert (clips[pair["clip_id"]]["width"], clips[pair["kept_clip_id"]]["width"]) == (120, 160)
    assert pair["why"] == "resolution"


def test_every_clip_has_a_word_and_the_right_ones_are_kept(done: tuple[Store, Path, list[Result]]) -> None:
    clips = {c["clip_id"]: c for c in rows(done[0], CLIPS)}
    reasons = {s["clip_id"]: (s["verdict"], s["reasons"]) for s in rows(done[0], SELECTIONS)}
    assert set(reasons) == set(clips)
    kept = sorted(clips[c]["start_frame"] for c, (v, _) in reasons.items() if v == "keep")
    assert kept == [0, 40]
    assert sorted(r for v, r in reasons.values() if v == "reject") == [["freeze", "static"], ["near_duplicate"]]
    verdicts = rows(done[0], VERDICTS)
    assert len(verdicts) == len(clips) * len(CONFIG.policy.resolved())


def test_where_the_better_twin_is_rejected_the_lesser_one_stays_and_says_why(
    done: tuple[Store, Path, list[Result]], tmp_path: Path
) -> None:
    """The pair is a fact and stays as it is; who is kept follows from all rules, and what-if knew it before."""
    store = Store(tmp_path / "copy")
    shutil.copytree(done[0].root, store.root)
    bounds = (*RULES, "clips.width.max=150")
    (pair,) = rows(store, DUPLICATES)
    (before,) = [v for v in rows(store, VERDICTS) if (v["rule"], v["verdict"]) == ("near_duplicate", "reject")]
    assert before["reason"].endswith(f"{pair['kept_clip_id']} stays (resolution)")
    expected = whatif.answer(whatif.ask(store, PolicyConfig(bounds=bounds).resolved()))
    config = dataclasses.replace(CONFIG, policy=PolicyConfig(bounds=bounds))
    assert [r.computed for r in curate_only(Path(store.root), config, [DUPLICATES_STAGE, VERDICTS_STAGE])] == [
        False,
        True,
    ]
    words = {s["clip_id"]: s["verdict"] for s in rows(store, SELECTIONS)}
    assert (words[pair["clip_id"]], words[pair["kept_clip_id"]]) == ("keep", "reject")
    assert {w: a["clips"] for w, a in expected["after"].items() if a["clips"]} == Counter(words.values())
    (said,) = [v["reason"] for v in rows(store, VERDICTS) if v["clip_id"] == pair["clip_id"] and v["reason"]]
    assert said == f"stays in place of {pair['kept_clip_id']}, which is not kept (clips.width)"
    assert rows(store, DUPLICATES) == [pair]
    again = whatif.answer(whatif.ask(store, PolicyConfig(bounds=RULES).resolved()))
    assert again["difference"]["came"]["clips"] == sum(r["verdict"] == "keep" for r in rows(done[0], SELECTIONS))
    assert again["difference"]["went_by"] == {"near_duplicate": again["difference"]["went"]}


def test_only_kept_clips_become_files_and_files_are_whole(done: tuple[Store, Path, list[Result]]) -> None:
    store = done[0]
    clips = {c["clip_id"]: c for c in rows(store, CLIPS)}
    files = rows(store, CLIP_FILES)
    assert len(files) == 2
    for file in files:
        clip = clips[file["clip_id"]]
        assert file["status"] == "ok"
        assert (
            file["num_frames"]
            == clip["end_frame"] - clip["start_frame"]
            == len(decode_all(Path(store.fetch(file["path"]))))
        )
        assert file["path"] == f"blobs/clips/{file['clip_id'][:2]}/{file['clip_id']}.mp4"


def test_a_rerun_computes_nothing_and_a_moved_bound_decodes_nothing(done: tuple[Store, Path, list[Result]]) -> None:
    store, folder, _ = done
    assert [r.computed for r in curate(Path(store.root), folder)] == [False] * len(CHAIN)
    looser = dataclasses.replace(CONFIG, policy=PolicyConfig(bounds=(*RULES, "static=off", "freeze=off")))
    assert [r.computed for r in curate(Path(store.root), folder, looser)] == [*[False] * 6, True, True]
    assert [r.computed for r in curate(Path(store.root), folder)][-2:] == [True, True]


def test_a_moved_boundary_bound_decides_again_and_decodes_nothing(
    done: tuple[Store, Path, list[Result]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the stored curves alone: the footage is gone, and the decoder with it."""
    import pipelines.scan.scan

    store, _folder, _ = done
    shutil.copytree(store.root, tmp_path / "root")
    monkeypatch.setattr(pipelines.scan.scan, "decode_frames", None)
    spans = ShotsConfig(spans=SpanConfig(min_clip_s=0.1, max_clip_s=1.0))
    strict = ShotsConfig(boundaries=BoundaryConfig(hard=0.99))
    found = {}
    for name, shots in (("as it was", ShotsConfig()), ("short", spans), ("strict", strict)):
        config = dataclasses.replace(CONFIG, shots=shots)
        results = curate_only(tmp_path / "root", config, CHAIN[:-1])
        assert [r.computed for r in results] == [False, False, *[name != "as it was"] * 5]
        clips = Store(tmp_path / "root").read(CLIPS, batch="one").to_pylist()
        found[name] = {(c["video_id"], c["start_frame"], c["end_frame"]): c["clip_id"] for c in clips}
    assert {key for key in found["as it was"] if key[1] == 40}
    assert {c["end_s"] - c["start_s"] <= 1.05 for c in Store(tmp_path / "root").read(CLIPS, batch="one").to_pylist()}
    assert len(found["short"]) > len(found["as it was"])
    assert all(found["as it was"][key] == found["strict"][key] for key in found["as it was"].keys() & found["strict"])


def test_clips_are_scored_alike_however_many_make_an_item(
    done: tuple[Store, Path, list[Result]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item is put together when its turn comes; one clip by itself, the tables have the same rows."""
    root = tmp_path / "copy"
    shutil.copytree(done[0].root, root)
    shutil.rmtree(root / "work" / "signal_scores")
    monkeypatch.setattr(pipelines.signal_scores, "_CLIPS_EACH", 1)
    (again,) = curate_only(root, CONFIG, [SIGNAL_SCORES_STAGE], force=True)
    assert again.computed
    assert len(list((root / "work" / "signal_scores").glob("*.score_blur.parquet"))) == again.rows["score_blur"] == 4
    for table in SIGNAL_SCORES_STAGE.writes:
        assert rows(Store(root), table) == rows(done[0], table)


def test_the_pictures_are_small_enough_for_the_ui(done: tuple[Store, Path, list[Result]]) -> None:
    pictures = {name: path for r in done[2] for name, path in r.pictures.items()}
    assert set(pictures) == {"frames", "kept", "rejected", "clips"}
    assert all(len(done[0].read_bytes(p)) <= 120_000 for p in pictures.values())


def test_the_same_footage_elsewhere_gives_the_same_rows(done: tuple[Store, Path, list[Result]], tmp_path: Path) -> None:
    shutil.copytree(done[1], tmp_path / "moved")
    curate(tmp_path / "root", tmp_path / "moved")
    other = Store(tmp_path / "root")
    for table in (SCANS, CLIPS, SIGNALS, FRAMES, SELECTIONS, VERDICTS):
        assert other.read(table, batch="one").equals(done[0].read(table, batch="one")), table.name


def test_frames_are_decoded_once_by_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts what libav hands out: full decodes by every stage up to the verdicts."""
    import pipelines.scan.scan
    import pipelines.video.cut
    import pipelines.video.decode

    counted: Counter[str] = Counter()
    real = pipelines.video.decode.decode_frames

    def counting(folder: str, path: str, *args: Any, **options: Any) -> Any:
        for frame in real(folder, path, *args, **options):
            counted[path] += 1
            yield frame

    for module in (pipelines.scan.scan, pipelines.video.cut):
        monkeypatch.setattr(module, "decode_frames", counting)
    folder = tmp_path / "footage"
    make_video(folder / "a.mp4", shot(1, 40) + shot(2, 35))
    store = Store(tmp_path / "root").create()
    batches.register(store, batches.Batch(name="one", folder=str(folder), kind=batches.FOOTAGE))
    for stage in CHAIN[:-1]:
        run_stage(stage, store, CONFIG, batch="one" if stage.partitioned else None)
    assert counted == {"a.mp4": 75}


def test_an_empty_folder_and_a_missing_one_are_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FootageError, match="holds no file"):
        curate(tmp_path / "root", tmp_path / "empty")
    with pytest.raises(FootageError, match="does not exist"):
        curate(tmp_path / "root2", tmp_path / "absent")


def test_footage_that_is_all_rubbish_goes_through(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    for i, data in enumerate((b"", b"text", bytes(range(256)) * 9)):
        (tmp_path / "f" / f"{i}.mp4").write_bytes(data)
    results = curate(tmp_path / "root", tmp_path / "f")
    assert results[0].rows == {"videos": 3}
    assert Store(tmp_path / "root").read(SELECTIONS, batch="one").num_rows == 0


def _captions(store: Store, bad: int = 0) -> None:
    """A caption for every kept clip, the first `bad` of them without text."""
    kept = [s["clip_id"] for s in rows(store, SELECTIONS) if s["verdict"] == "keep"]
    made = [
        Caption(
            clip_id=c,
            short="A pan." if i >= bad else "",
            dense="A slow pan over a place." if i >= bad else "",
            fields=Fields(subjects=[Subject(shape="place")], events=[]) if i >= bad else None,
            status="ok" if i >= bad else "unparsable",
            raw_short="",
            raw_dense="",
            backend="fake",
            model="m",
            knows="synthetic",
            prompt_version="1",
            decoding="{}",
            frame_indices=[],
            num_tokens=1,
            finish_reason="stop",
            attempts=1,
        )
        for i, c in enumerate(sorted(kept))
    ]
    store.commit(CAPTIONS, CAPTIONS.from_rows(made), batch="one")


def test_a_manifest_is_named_by_its_content_and_never_changes(
    done: tuple[Store, Path, list[Result]], tmp_path: Path
) -> None:
    shutil.copytree(done[0].root, tmp_path / "root")
    store = Store(tmp_path / "root")
    with pytest.raises(MissingTable):
        run_stage(MANIFEST_STAGE, store, CONFIG)
    _captions(store, bad=1)
    first = run_stage(MANIFEST_STAGE, store, CONFIG)
    assert (first.rows["manifest"], first.metrics["left_out_caption_unparsable"]) == (1, 1)
    _captions(store)
    second = run_stage(MANIFEST_STAGE, store, CONFIG)
    names = [r.metrics["manifest"] for r in (first, second)]
    assert len(set(names)) == 2
    note = store.read_json("manifests", names[1], "_manifest.json")
    snapshot = pq.read_table(store.at("manifests", names[1], "part-00000.parquet"))
    assert note["rows"] == snapshot.num_rows == 2
    assert snapshot.cast(MANIFEST.schema).equals(store.read(MANIFEST).cast(MANIFEST.schema))
    assert {r["licence"] for r in snapshot.to_pylist()} == {"CC0-1.0"}
    before = store.read_bytes("manifests", names[0], "part-00000.parquet")
    _captions(store, bad=1)
    third = run_stage(MANIFEST_STAGE, store, CONFIG)
    assert third.metrics["manifest"] == names[0]
    assert store.read_bytes("manifests", names[0], "part-00000.parquet") == before


def test_aspect_ratios_are_counted_by_their_nearest_name() -> None:
    assert [aspect(*s) for s in ((1920, 1080), (144, 256), (640, 480), (100, 100), (344, 144))] == [
        "16:9",
        "9:16",
        "4:3",
        "1:1",
        "2.39:1",
    ]


def test_stage_names_differ_and_each_table_has_one_writer() -> None:
    names = [s.name for s in STAGES]
    writers = Counter(t.name for s in STAGES for t in s.writes)
    assert len(set(names)) == len(names)
    assert set(writers.values()) == {1}
