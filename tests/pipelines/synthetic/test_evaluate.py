"""Evaluation on tables made by hand, where every count can be seen; and with nothing to measure."""

import dataclasses
import types
from collections import Counter
from pathlib import Path

import pytest

from pipelines.execute import run_stage
from pipelines.synthetic import evaluate
from pipelines.synthetic.combinations import LEVELS
from pipelines.synthetic.evaluate import Batch, EvaluationConfig, Tally, boundaries, captions, policy
from pipelines.synthetic.measure import EVALUATION_STAGE, derangement, judge_samples
from pipelines.synthetic.prompts import PromptsConfig, make_prompt
from pipelines.synthetic.render import render_clip
from pipelines.synthetic.world import Scene, generator, lone_actor
from pipelines.video.write import write_video
from schemas.captions import Caption, Fields, Subject
from schemas.clips import Clip
from schemas.ledger import LEDGER, LedgerRow
from schemas.samples import EVALUATION, PROMPTS
from schemas.shots import BoundaryRow, Shot
from schemas.store import Store
from schemas.truth import TruthShot, TruthVideo
from schemas.verdicts import Selection, VerdictRow
from schemas.videos import Scan, Video

CONFIG = EvaluationConfig()
RED = Fields(subjects=[Subject(shape="circle", color="red", motion="still")], events=[], background="sand")


def _truth_video(path: str, defect: str = "none", of: str | None = None) -> TruthVideo:
    return TruthVideo(
        path=path, aspect="1:1", width=64, height=64, fps=10.0, num_frames=100, defect=defect, duplicate_of=of
    )


def _truth(index: int, start: int, end: int, cut: str = "hard", defect: str = "none", **more: object) -> TruthShot:
    row = TruthShot(
        path="a.mp4",
        shot_index=index,
        start_frame=start,
        end_frame=end,
        cut_in=cut,
        transition_start_frame=start,
        defect=defect,
        duplicate_of=None,
        flash_start_frame=None,
        flash_end_frame=None,
        fields=RED,
        short="",
        dense="",
    )
    return dataclasses.replace(row, **more)


def _shot(index: int, start: int, end: int, cut: str) -> Shot:
    return Shot(
        shot_id=str(index), video_id="A", shot_index=index, start_pts=start, end_pts=end, start_frame=start,
        end_frame=end, start_s=start / 10, end_s=end / 10, cut_in=cut, cut_out="",
    )  # fmt: skip


def _clip(name: str, start: int, end: int, crop: list[int] | None = None) -> Clip:
    return Clip(
        clip_id=name, video_id="A", shot_id="", start_pts=start, end_pts=end, time_base_num=1, time_base_den=10,
        start_frame=start, end_frame=end, start_s=start / 10, end_s=end / 10, fps=10.0, crop=crop, width=64,
        height=64, max_inner_boundary=0.0,
    )  # fmt: skip


def _verdict(clip: str, rule: str, verdict: str = "reject") -> VerdictRow:
    return VerdictRow(
        clip_id=clip, rule=rule, score_column="", score=1.0, minimum=None, maximum=None, verdict=verdict, reason=""
    )


def _batch(**more: object) -> Batch:
    base = Batch(
        truth_videos=[_truth_video("a.mp4")],
        truth_shots=[],
        videos=[Video(path="a.mp4", folder="", video_id="A", status="ok")],
    )
    return dataclasses.replace(base, **more)


def test_a_boundary_counts_within_its_tolerance_once_and_by_its_kind() -> None:
    truth = [
        _truth(0, 0, 20, "start"),
        _truth(1, 20, 40, "hard"),
        _truth(2, 50, 70, "dissolve", transition_start_frame=40),
        _truth(3, 70, 90, "hard"),
    ]
    shots = [
        _shot(0, 0, 22, "start"),
        _shot(1, 22, 24, "hard"),  # two frames late: right
        _shot(2, 24, 41, "hard"),  # a second one at the same cut: wrong
        _shot(3, 49, 75, "fade"),  # inside the dissolve, called a fade: a gradual one, wrongly named
        _shot(4, 75, 90, "hard"),  # five frames late: wrong
    ]
    tallies, named = boundaries(_batch(truth_shots=truth, shots=shots), CONFIG)
    assert tallies["all"] == Tally(2, 4, 2, 3)
    assert tallies["hard"] == Tally(1, 3, 1, 2)
    assert tallies["dissolve"] == Tally(0, 0, 0, 1)
    assert tallies["fade"] == Tally(0, 1, 0, 0)
    assert tallies["gradual"] == Tally(1, 1, 1, 1)
    assert named == (1, 2)


def test_a_flash_is_found_where_it_is_and_is_no_boundary() -> None:
    truth = [
        _truth(0, 0, 40, "start", flash_start_frame=10, flash_end_frame=12),
        _truth(1, 40, 80, flash_start_frame=60, flash_end_frame=61),
    ]
    rows = [
        BoundaryRow(
            video_id="A", kind=kind, start_frame=start, end_frame=end, start_pts=start, end_pts=end,
            start_s=start / 10, end_s=end / 10, evidence=1.0,
        )
        for kind, start, end in (("flash", 11, 13), ("flash", 30, 32), ("hard", 40, 40), ("hard", 60, 60))
    ]  # fmt: skip
    shots = [_shot(0, 0, 40, "start"), _shot(1, 40, 60, "hard"), _shot(2, 60, 80, "hard")]
    tallies, _ = boundaries(_batch(truth_shots=truth, shots=shots, boundaries=rows), CONFIG)
    assert tallies["flash"] == Tally(1, 2, 1, 2)
    assert tallies["hard"] == Tally(1, 2, 1, 1)


def test_files_that_are_copies_or_damaged_do_not_count_for_boundaries() -> None:
    batch = _batch(
        truth_videos=[_truth_video("a.mp4", "corrupt")],
        truth_shots=[_truth(0, 0, 20, "start"), _truth(1, 20, 40)],
    )
    assert boundaries(batch, CONFIG)[0]["all"] == Tally()


def test_a_rule_is_judged_by_the_shots_it_fired_on() -> None:
    truth = [
        _truth(0, 0, 20, "start", "blur"),
        _truth(1, 20, 40, defect="blur"),
        _truth(2, 40, 60),
        _truth(3, 60, 80, defect="letterbox"),
        _truth(4, 80, 100, defect="static"),
    ]
    clips = [
        _clip("c0", 0, 20),
        _clip("c1", 21, 40),
        _clip("c2", 40, 60),
        _clip("c3", 60, 80, [0, 8, 64, 48]),
        _clip("c4", 80, 100),
    ]
    verdicts = [
        _verdict("c0", "blur"),
        _verdict("c2", "blur"),
        _verdict("c1", "blur", "keep"),
        _verdict("c4", "freeze"),
    ]
    selections = [
        Selection(clip_id=c, verdict="reject" if c in ("c0", "c2", "c4") else "keep", reasons=[])
        for c in ("c0", "c1", "c2", "c3", "c4")
    ]
    found = policy(_batch(truth_shots=truth, clips=clips, verdicts=verdicts, selections=selections), CONFIG)
    assert found["blur"] == Tally(1, 2, 1, 2)
    assert found["letterbox"] == Tally(1, 1, 1, 1)
    assert found["static"] == Tally(1, 1, 1, 1)
    assert found["freeze"] == Tally(1, 1, 0, 0)
    assert found["dark"] == Tally()
    assert found["all"] == Tally(2, 3, 2, 3)


def test_of_two_near_duplicates_either_may_go() -> None:
    truth = [
        _truth(0, 0, 20, "start"),
        _truth(1, 20, 40, defect="near_duplicate", duplicate_of="a.mp4#0"),
        _truth(2, 40, 60),
    ]
    clips = [_clip("c0", 0, 20), _clip("c1", 20, 40), _clip("c2", 40, 60)]
    for gone in ("c0", "c1"):
        selections = [
            Selection(clip_id=c.clip_id, verdict="reject" if c.clip_id == gone else "keep", reasons=[]) for c in clips
        ]
        found = policy(
            _batch(truth_shots=truth, clips=clips, verdicts=[_verdict(gone, "near_duplicate")], selections=selections),
            CONFIG,
        )
        assert found["near_duplicate"] == Tally(1, 1, 1, 1)
        assert found["all"] == Tally(1, 1, 1, 1)


def test_a_copy_that_stays_in_place_of_a_lost_original_is_no_miss() -> None:
    truth = [_truth(0, 0, 20, "start"), _truth(1, 20, 40, defect="near_duplicate", duplicate_of="a.mp4#0")]
    clips = [_clip("c0", 0, 20), _clip("c1", 20, 40)]
    words = {"c0": "reject", "c1": "keep"}
    selections = [Selection(clip_id=c, verdict=w, reasons=[]) for c, w in words.items()]
    batch = _batch(truth_shots=truth, clips=clips, verdicts=[_verdict("c0", "dark")], selections=selections)
    found = policy(batch, CONFIG)
    assert found["near_duplicate"] == Tally()
    assert found["dark"] == Tally(0, 1, 0, 0)
    assert found["all"] == Tally(0, 1, 0, 0)


def test_copies_and_damage_are_judged_by_file() -> None:
    batch = Batch(
        truth_videos=[
            _truth_video("a.mp4"),
            _truth_video("a_copy.mp4", "duplicate", "a.mp4"),
            _truth_video("b.mp4", "corrupt"),
            _truth_video("b_copy.mp4", "duplicate", "b.mp4"),  # as corrupt as its source
        ],
        truth_shots=[],
        videos=[
            Video(path="a.mp4", folder="", video_id="A", status="ok"),
            Video(path="a_copy.mp4", folder="", video_id="A", status="ok", duplicate_of="a.mp4"),
            Video(path="b.mp4", folder="", video_id="B", status="ok"),
            Video(path="b_copy.mp4", folder="", video_id="B", status="ok", duplicate_of="b.mp4"),
        ],
        scans=[
            Scan(video_id=v, status=s, num_frames=9, decode_passes=1, damaged=[])
            for v, s in (("A", "damaged"), ("B", "damaged"))
        ],
    )
    found = policy(batch, CONFIG)
    assert found["duplicate"] == Tally(2, 2, 2, 2)
    assert found["corrupt"] == Tally(2, 4, 2, 2)


def _caption(clip: str, fields: Fields | None, status: str = "ok") -> Caption:
    return Caption(
        clip_id=clip, short="", dense="", fields=fields, status=status, raw_short="", raw_dense="", backend="",
        model="", knows="", prompt_version="", decoding="", frame_indices=[], num_tokens=0, finish_reason="",
        attempts=1,
    )  # fmt: skip


def test_claims_are_counted_against_the_truth() -> None:
    blue = Fields(
        subjects=[Subject(shape="circle", color="blue", motion="still")], events=[], background="sand", camera="static"
    )
    batch = _batch(
        truth_shots=[_truth(0, 0, 20, "start"), _truth(1, 20, 40)],
        clips=[_clip("c0", 0, 20), _clip("c1", 20, 40), _clip("c2", 0, 10)],
        captions=[
            _caption("c0", dataclasses.replace(RED, lighting="dusk")),
            _caption("c1", blue),
            _caption("c2", None, "unparsable"),
        ],
    )
    tallies, untrue, ok = captions(batch, CONFIG)
    assert tallies["color"] == Tally(1, 2, 1, 2)
    assert tallies["camera"] == Tally(0, 1, 0, 0)
    assert tallies["all"] == Tally(7, 9, 7, 8)
    assert (untrue, ok) == ((1, 2), (2, 3))


def test_a_rate_carries_its_wilson_interval() -> None:
    row = evaluate.rate("generated", "color", "accuracy", 8, 10, 1 / 6)
    assert (row.value, row.n, row.chance) == (0.8, 10, 1 / 6)
    assert row.low == pytest.approx(0.4902, abs=1e-4)
    assert row.high == pytest.approx(0.9433, abs=1e-4)
    assert evaluate.rate("generated", "color", "accuracy", 0, 0).value is None


def test_f1_is_the_harmonic_mean_and_null_without_truth() -> None:
    rows = {
        (m.name, m.metric): m.value
        for m in evaluate.measures("policy", {"a": Tally(1, 2, 1, 1), "b": Tally(0, 3, 0, 0)})
    }
    assert rows["a", "f1"] == pytest.approx(2 / 3)
    assert rows["b", "f1"] is None
    assert rows["b", "precision"] == 0.0


@pytest.mark.parametrize("count", [2, 3, 17])
def test_in_a_derangement_nobody_stays(count: int) -> None:
    found = derangement(count, 0)
    assert sorted(found) == list(range(count))
    assert all(i != there for i, there in enumerate(found))


def test_videos_that_show_their_prompt_score_one_and_the_control_does_not(tmp_path: Path) -> None:
    prompts, samples = [], []
    for i in range(24):
        prompt = make_prompt(PromptsConfig(), i)
        assert prompt.fields is not None
        main = prompt.fields.subjects[0]
        actor = lone_actor(
            generator(i), prompt.width / prompt.height,
            color=main.color, shape=main.shape, size=main.size, motions=(main.motion,),
        )  # fmt: skip
        scene = Scene(
            actors=(actor,), relation="", background=prompt.fields.background, camera=prompt.fields.camera,
            texture=i % 8, shift=(0.0, 0.0),
        )  # fmt: skip
        write_video(
            str(tmp_path / f"{i}.mp4"), render_clip(scene, [j / 8 for j in range(9)], prompt.width, prompt.height), 8
        )
        prompts.append(prompt)
        samples.append({"prompt_id": prompt.prompt_id, "status": "ok", "path": f"{i}.mp4"})
    (tmp_path / "0.mp4").write_bytes(b"rubbish")
    asked = [p.fields.subjects[0] for p in prompts[:8]]
    shown = {level: Counter() for level in LEVELS}
    shown["subject"].update((a.color, a.shape, a.motion) for a in asked)
    rows, judged = judge_samples(Store(tmp_path), samples, PROMPTS.from_rows(prompts).to_pylist(), 0, shown)
    own = {m.name: m for m in rows if m.group == "generated"}
    control = {m.name: m for m in rows if m.group == "control"}
    for name in ("color", "background", "shape", "motion"):
        assert own[name].value == 23 / 24  # the one that does not play is wrong, not left out
        assert control[name].value is not None
        assert control[name].value < 0.6
    apart = {m.group: m for m in rows if m.name == "together"}
    assert apart["seen_subject"].n + apart["unseen_subject"].n == 24
    assert apart["seen_subject"].n >= 8
    assert apart["unseen_subject"].value == 1.0, "the one that does not play is among the seen"
    assert len(judged) == 24 * 5
    assert sum(j.right for j in judged if j.name == "color") == 23
    assert all((j.clips_subject or 0) > 0 for j in judged if j.prompt_id in {p.prompt_id for p in prompts[:8]})


def test_loss_is_averaged_over_the_first_and_last_tenth_of_steps(tmp_path: Path) -> None:
    row = LedgerRow(
        step=0, pack=0, position=0, clip_id="", epoch=0, tokens=1, t=0.5, task="", caption="", loss=0.0, manifest=""
    )
    ledger = [dataclasses.replace(row, step=s, position=p, loss=float(20 - s) + p) for s in range(20) for p in (0, 1)]
    store = Store(tmp_path).create()
    store.commit(LEDGER, LEDGER.from_rows(ledger))
    config = types.SimpleNamespace(synthetic=types.SimpleNamespace(evaluation=CONFIG))
    run_stage(EVALUATION_STAGE, store, config)
    found = {r["metric"]: r["value"] for r in store.read(EVALUATION).to_pylist()}
    assert found == {"loss_first": 20.0, "loss_last": 2.0, "steps": 20.0}


def test_with_nothing_to_measure_the_stage_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path).create()
    config = types.SimpleNamespace(synthetic=types.SimpleNamespace(evaluation=CONFIG))
    run_stage(EVALUATION_STAGE, store, config)
    assert store.read(EVALUATION)["metric"].to_pylist() == ["nothing_to_measure"]
