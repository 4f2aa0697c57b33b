"""The stage `captions`: every kept clip is a row, whatever becomes of it."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from captioner.attempts import attempts
from captioner.backends.base import LENGTH, STOP, Backend, Clip, Decoding, Written
from captioner.config import CaptionerConfig
from captioner.describe import Job
from captioner.frames import FrameSpec
from captioner.jobs import chunked
from captioner.prompt import Prompt
from captioner.recipes import RECIPES, tiny
from captioner.replay import replay
from captioner.stages import CAPTIONER_MODEL, CAPTIONS_STAGE, STAGES
from orchestration import cli
from pipelines.execute import Executor, Local, Ray, run_stage
from schemas import batches
from schemas.captions import CAPTIONS
from schemas.errors import MissingTable, ModelError
from schemas.store import Store, content_digest
from tests.captioner.worlds import footage

FAKE = dataclasses.replace(tiny(), backend="fake", batch_size=2, frames=FrameSpec(num_frames=4, area=24 * 24))


def captions(store: Store, config: CaptionerConfig, executor: Executor | None = None) -> dict[str, dict]:
    run_stage(CAPTIONS_STAGE, store, config, batch="b", executor=executor)
    return {row["clip_id"]: row for row in store.read(CAPTIONS, batch="b").to_pylist()}


def test_kept_clips_are_captioned_and_no_other(tmp_path: Path) -> None:
    rows = captions(footage(tmp_path), FAKE)
    assert sorted(rows) == ["blind", "c0", "c1", "c2", "c3", "c4", "c5", "torn"]
    assert rows["c0"]["short"] == "A red picture is changing."
    assert rows["c1"]["fields"]["subjects"][0]["color"] == "green"
    assert rows["c2"]["frame_indices"] == [42, 46, 52, 56]
    for name in ("c0", "c3", "c5"):
        row = rows[name]
        assert (row["status"], row["backend"], row["model"], row["knows"]) == ("ok", "fake", "fake-1", "nothing")
        assert row["attempts"] == 1
        assert row["made_by"]
        assert json.loads(row["decoding"])["dense"]["num_beams"] == 1


def test_clips_without_usable_frames_are_rows_with_a_reason(tmp_path: Path) -> None:
    rows = captions(footage(tmp_path), FAKE)
    assert (rows["blind"]["status"], rows["torn"]["status"]) == ("failed", "failed")
    assert "no frame between 100.000 s" in rows["blind"]["reason"]
    assert "does not decode" in rows["torn"]["reason"]
    assert rows["torn"]["short"] == rows["torn"]["dense"] == ""


def test_metrics_count_by_status_and_a_picture_is_small(tmp_path: Path) -> None:
    store = footage(tmp_path)
    result = run_stage(CAPTIONS_STAGE, store, FAKE, batch="b")
    assert (result.metrics["captions_ok"], result.metrics["captions_failed"]) == (6, 2)
    assert result.metrics["clips"] == 8
    assert 1000 < len(store.read_bytes(result.pictures["captions"])) <= 120_000


def test_another_chunk_size_or_executor_gives_the_same_rows(tmp_path: Path) -> None:
    digests = set()
    for name, size in (("one", 1), ("many", 100)):
        store = footage(tmp_path / name)
        captions(store, dataclasses.replace(FAKE, batch_size=size))
        table = store.read(CAPTIONS, batch="b").drop_columns(["made_by"])
        digests.add(content_digest(table))
    assert len(digests) == 1


@pytest.mark.ray
def test_ray_and_local_give_the_same_rows(tmp_path: Path, cluster: object) -> None:
    digests = set()
    for executor in (Local(), Ray(workers=2)):
        store = footage(tmp_path / executor.name)
        captions(store, FAKE, executor)
        digests.add(content_digest(store.read(CAPTIONS, batch="b")))
    assert len(digests) == 1


def test_our_model_captions_and_says_which_it_is(tmp_path: Path) -> None:
    store = footage(tmp_path, kind=batches.FOOTAGE)
    config = dataclasses.replace(tiny(), require_fields=False)
    run_stage(CAPTIONER_MODEL, store, config)
    result = run_stage(CAPTIONS_STAGE, store, config, batch="b")
    rows = store.read(CAPTIONS, batch="b").to_pylist()
    assert {(r["backend"], r["knows"]) for r in rows} == {("recaptioner", "synthetic")}
    assert len({r["model"] for r in rows}) == 1
    assert "synthetic clips only" in result.metrics["note"]
    assert all(r["raw_dense"] or r["status"] == "failed" for r in rows)
    assert not run_stage(CAPTIONS_STAGE, store, config, batch="b").computed


def test_without_a_checkpoint_the_message_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(MissingTable, match="run stage `captioner_model` first"):
        run_stage(CAPTIONS_STAGE, footage(tmp_path), tiny(), batch="b")


def test_a_damaged_checkpoint_stops_the_stage_and_makes_no_rows(tmp_path: Path) -> None:
    store = footage(tmp_path)
    result = run_stage(CAPTIONER_MODEL, store, tiny())
    Path(store.at(result.metrics["checkpoint"], "model.safetensors")).write_bytes(b"")
    with pytest.raises(ModelError, match="train it again"):
        run_stage(CAPTIONS_STAGE, store, tiny(), batch="b")
    assert store.committed(CAPTIONS, "b") is None


class Scripted(Backend):
    """Says what it was told to, and remembers how it was asked."""

    model = "scripted"

    def __init__(self, *answers: Written) -> None:
        self.answers, self.asked = list(answers), []

    def write(self, clips: Sequence[Clip], prompt: Prompt, decoding: Decoding) -> list[Written]:
        self.asked.append((len(clips), decoding))
        return [self.answers.pop(0) for _ in clips]


GOOD = Written("A red star is moving up.", 7, STOP)


@pytest.mark.parametrize(
    ("bad", "change"),
    [
        (Written("A red star is", 4, LENGTH), {"dense_tokens": 512, "short_tokens": 96}),
        (Written("go on and on " * 9, 30, LENGTH), {"no_repeat_ngram": 4}),
        (Written("Something else.", 3, STOP), {"num_beams": 4}),
        (Written("Sorry, no.", 3, STOP), {"temperature": 0.7, "seed": 1}),
    ],
)
def test_a_retry_changes_something_and_asks_only_for_what_failed(bad: Written, change: dict) -> None:
    backend = Scripted(GOOD, bad, GOOD)
    clip = Clip(np.zeros((4, 8, 8, 3), np.uint8), (0.0, 1.0, 2.0, 3.0))
    done = attempts(backend, [clip, clip], "dense", tiny().captioning())
    assert [a.parsed.status for a in done] == ["ok", "ok"]
    assert [len(a.tries) for a in done] == [1, 2]
    assert backend.asked == [(2, Decoding()), (1, dataclasses.replace(Decoding(), **change))]


def test_more_frames_are_shown_to_those_that_take_them() -> None:
    few, many = (Clip(np.zeros((n, 8, 8, 3), np.uint8), tuple(float(i) for i in range(n))) for n in (4, 8))
    refusal = Written("Sorry, no.", 3, STOP)
    backend = Scripted(refusal, refusal, GOOD)
    backend.sees_more = True
    (done,) = attempts(backend, [few], "dense", tiny().captioning(), [many])
    assert [(t.num_frames, t.change) for t in done.tries] == [
        (4, ""),
        (4, "temperature=0.7, seed=1"),
        (8, "seed=2, more frames"),
    ]


def test_a_checkpoint_of_another_version_says_so(tmp_path: Path) -> None:
    store = footage(tmp_path)
    result = run_stage(CAPTIONER_MODEL, store, tiny())
    path = Path(store.at(result.metrics["checkpoint"], "config.json"))
    right = json.loads(path.read_text())
    for change, message in (
        ({"format": 99}, "has format 99, this version reads"),
        ({"model": {**right["model"], "wings": 2}}, "written by another version .*wings"),
        ({"slots": {}}, "written by another version"),
    ):
        path.write_text(json.dumps({**right, **change}))
        with pytest.raises(ModelError, match=message):
            run_stage(CAPTIONS_STAGE, store, tiny(), batch="b")
    assert store.committed(CAPTIONS, "b") is None


def test_replay_finds_equal_rows_and_names_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = footage(tmp_path)
    config = dataclasses.replace(tiny(), require_fields=False)
    run_stage(CAPTIONER_MODEL, store, config)
    run_stage(CAPTIONS_STAGE, store, config, batch="b")
    found = replay(store, config, ["b"], sample=4, seed=1)
    assert (found["compared"], found["equal"], found["differ"]) == (4, 4, [])
    written = store.read(CAPTIONS, batch="b").to_pylist()
    liar = [{**r, "raw_dense": "A lie."} if r["clip_id"] == "c1" else r for r in written]
    commit = store.committed(CAPTIONS, "b")
    store.commit(CAPTIONS, CAPTIONS.from_rows(liar), batch="b", inputs=commit.inputs, made_by=commit.made_by)
    found = replay(store, config, ["b"], sample=99, seed=1)
    assert (found["compared"], found["equal"]) == (6, 5)
    assert [(d["clip_id"], d["what"]) for d in found["differ"]] == [("c1", ("raw_dense",))]
    found = replay(store, dataclasses.replace(config, retries=0), ["b"], sample=99, seed=1)
    assert (found["equal"], found["stale"]) == (0, 6)
    words = ["caption", "replay", "--root", str(tmp_path), "--sample", "2", "--json"]
    assert cli.main(words) == 1  # another recipe wrote them
    assert json.loads(capsys.readouterr().out)["stale"] == 2


def test_chunks_have_one_shape_and_do_not_depend_on_the_order_of_clips() -> None:
    make = functools.partial(Job, jpegs=(), frame_indices=(), times_s=(), box=None)
    jobs = [make(clip_id=f"c{i}", size=(8, 8) if i % 3 else (8, 16)) for i in range(10)]
    chunks = chunked(jobs, 3)
    assert chunks == chunked(jobs[::-1], 3)
    assert sorted(j.clip_id for c in chunks for j in c) == sorted(j.clip_id for j in jobs)
    assert all(len({j.size for j in c}) == 1 and len(c) <= 3 for c in chunks)


def test_settings_of_backends_that_are_not_used_do_not_count() -> None:
    base = CaptionerConfig()
    other = dataclasses.replace(base, vlm=dataclasses.replace(base.vlm, model="other/model"))
    assert base.captioning() == other.captioning()
    vlm = dataclasses.replace(base, backend="transformers_vlm")
    assert vlm.captioning() != dataclasses.replace(other, backend="transformers_vlm").captioning()


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_build_and_stages_are_listed(name: str) -> None:
    assert RECIPES[name]().captioning().backend in ("recaptioner", "transformers_vlm")
    assert [s.name for s in STAGES] == ["pairs", "captioner_model", "captions", "caption_claims", "expander"]


@pytest.mark.parametrize("bad", [{"backend": "nobody"}, {"batch_size": 0}, {"retries": 9}])
def test_a_wrong_config_fails_at_construction(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        CaptionerConfig(**bad)
