"""The stage `captions`: every kept clip is a row, whatever becomes of it."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from captioner import describe
from captioner.backends.base import LENGTH, STOP, Clip, Decoding, Written
from captioner.config import CaptionerConfig
from captioner.describe import again, attempts
from captioner.frames import FrameSpec
from captioner.prompt import Prompt
from captioner.recipes import RECIPES, tiny
from captioner.stages import CAPTIONER_MODEL, CAPTIONS_STAGE, STAGES, chunked
from pipelines.execute import Executor, Local, Ray, run_stage
from schemas import batches
from schemas.captions import CAPTIONS, CaptionStatus
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


class Scripted:
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
        (Written("Sorry, no.", 3, STOP), {"num_beams": 4}),
    ],
)
def test_a_retry_changes_something_and_asks_only_for_what_failed(bad: Written, change: dict) -> None:
    backend = Scripted(GOOD, bad, GOOD)
    done = attempts(backend, [None, None], "dense", tiny().captioning())
    assert [a.parsed.status for a in done] == ["ok", "ok"]
    assert [a.tries for a in done] == [1, 2]
    assert backend.asked == [(2, Decoding()), (1, dataclasses.replace(Decoding(), **change))]


def test_what_still_fails_is_a_row_with_status_reason_and_the_raw_text() -> None:
    config = tiny().captioning()
    bad = Written("Something else.", 3, STOP)
    backend = Scripted(bad, bad)
    done = attempts(backend, [None], "dense", config)[0]
    assert (done.tries, done.parsed.status) == (2, CaptionStatus.UNPARSABLE)
    job = describe.Job("c", (), (1, 2), (0.0, 0.1), None, (8, 8))
    good = describe.Attempt(GOOD, describe.read(GOOD.text, STOP, require_fields=True), Decoding(), 1)
    origin = describe.Origin(backend="scripted", knows="general", made_by="m")
    row = describe.row_of(job, {"short": good, "dense": done}, origin, config)
    assert (row.status, row.short, row.dense, row.fields) == ("unparsable", "", "", None)
    assert (row.raw_short, row.raw_dense, row.attempts) == (GOOD.text, bad.text, 2)
    assert row.reason.startswith("dense: ")


def test_every_failure_changes_the_decoding() -> None:
    for status in CaptionStatus:
        if status is not CaptionStatus.OK:
            assert again(Decoding(), status) != Decoding()


def test_chunks_have_one_shape_and_do_not_depend_on_the_order_of_clips() -> None:
    make = functools.partial(describe.Job, jpegs=(), frame_indices=(), times_s=(), box=None)
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
    assert [s.name for s in STAGES] == ["captioner_model", "captions"]


@pytest.mark.parametrize("bad", [{"backend": "nobody"}, {"batch_size": 0}, {"retries": 9}])
def test_a_wrong_config_fails_at_construction(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        CaptionerConfig(**bad)
