"""Near-duplicates: the same shot in another cut, encode, size or batch; and groups of like clips."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.config import CurationConfig
from pipelines.dedup.fingerprints import FINGERPRINTS_STAGE, VALUES, tiny
from pipelines.dedup.near_pairs import Match, NearConfig, Sequence, candidates, match, unit_rows
from pipelines.dedup.stage import DUPLICATES_STAGE, DedupConfig, Known, Pair, as_rows, find_pairs, group, stand_ins
from pipelines.execute import run_stage
from pipelines.ingest import VIDEOS_STAGE
from pipelines.manifest.stage import _weighted, _without_twins
from pipelines.policy import whatif
from pipelines.policy.rules import PolicyConfig
from pipelines.policy.verdicts import VERDICTS_STAGE
from pipelines.scan.stage import SCAN_STAGE
from pipelines.shots.stage import SHOTS_STAGE
from pipelines.signal_scores import SIGNAL_SCORES_STAGE
from schemas import batches
from schemas.clips import CLIPS
from schemas.scores import CLUSTERS, DUPLICATES, Duplicate
from schemas.store import Store
from schemas.verdicts import SELECTIONS
from tests.pipelines.scorers.test_scorers import clip
from tests.videos import make_video, shot, textured

NEAR = NearConfig()


def pan(seed: int, start_s: float, seconds: float, gain: float = 1.0, step_s: float = 0.4) -> Sequence:
    """Tiny pictures of a pan of 15 pixels per second over one place, from some time on."""
    times = np.arange(0, seconds + 1e-9, step_s)
    pictures = [tiny(textured(seed, shift=round(15 * (start_s + t)))) for t in times]
    flat = np.stack(pictures).reshape(len(times), VALUES).astype(np.float32) / 255
    return Sequence(np.minimum(flat * gain, 1), times)


def known(name: str, sequence: Sequence, embedding: list[float] | None = None, **changes: float) -> Known:
    made = dataclasses.replace(clip(50), clip_id=name, **changes)  # type: ignore[arg-type]
    vector = None if embedding is None else np.array(embedding, np.float32)
    return Known(made, "one", sequence, vector)


def test_another_cut_of_the_same_shot_matches_at_its_shift() -> None:
    found = match(pan(1, 0, 4), pan(1, 0.6, 3, gain=0.9), NEAR)
    assert found is not None
    assert found.is_same(NEAR)
    assert found.shift_s == pytest.approx(0.6, abs=0.11)
    turned = match(pan(1, 0.6, 3, gain=0.9), pan(1, 0, 4), NEAR)
    assert turned is not None
    assert turned.shift_s == pytest.approx(-found.shift_s)


def test_another_place_and_another_time_of_the_same_place_do_not_match() -> None:
    for other in (pan(2, 0, 4), pan(1, 9, 4), pan(1, 0, 4, gain=0.5)):
        found = match(pan(1, 0, 4), other, NEAR)
        assert found is None or not found.is_same(NEAR)


def test_sequences_that_hardly_overlap_do_not_match() -> None:
    assert match(pan(1, 0, 4), pan(1, 3, 4), dataclasses.replace(NEAR, max_shift_s=3.0)) is None or not match(
        pan(1, 0, 4), pan(1, 3, 4), NEAR
    ).is_same(NEAR)  # type: ignore[union-attr]


def test_two_title_cards_differ_little_and_are_two() -> None:
    cards = []
    for words in ("ONE BIG RABBIT", "THREE RODENTS"):
        from PIL import ImageDraw, ImageFont

        image = Image.new("RGB", (256, 144), (250, 250, 250))
        ImageDraw.Draw(image).text((20, 50), words, font=ImageFont.load_default(size=28), fill=(30, 160, 210))
        flat = np.repeat(tiny(np.asarray(image)).reshape(1, VALUES), 5, axis=0).astype(np.float32) / 255
        cards.append(Sequence(flat, np.arange(5) * 0.4))
    found = match(cards[0], cards[1], NEAR)
    assert found is not None
    assert found.difference < NEAR.max_mean
    assert not found.is_same(NEAR)


def test_clip_may_veto_and_cannot_add_a_pair() -> None:
    a, b, c = pan(1, 0, 3), pan(1, 0.2, 3), pan(3, 0, 3)
    one, other = [1.0, 0.0], [0.0, 1.0]
    alike = find_pairs([known("a", a, one), known("b", b, one), known("c", c, one)], DedupConfig())
    assert [(p.first, p.second, p.witness) for p in alike] == [(0, 1, "pixels and CLIP")]
    assert find_pairs([known("a", a, one), known("b", b, other)], DedupConfig()) == []
    assert [p.witness for p in find_pairs([known("a", a), known("b", b, one)], DedupConfig())] == ["pixels"]


def test_the_larger_then_the_longer_clip_stays() -> None:
    some = pan(1, 0, 3)
    clips = [known("a", some, width=80, end_s=9.0), known("b", some, end_s=1.0), known("c", some, end_s=2.0)]
    pairs = [Pair(i, j, Match(0.0, 0.0, 1.0, 0.5), 0.99, "pixels") for i, j in ((0, 1), (1, 2), (0, 2))]
    rows = as_rows(clips, pairs, "m")
    better = {(d.clip_id, d.kept_clip_id): (d.why, d.shift_s) for d in rows}
    assert better == {("a", "b"): ("resolution", -0.5), ("b", "c"): ("size", -0.5), ("a", "c"): ("resolution", -0.5)}
    assert stand_ins(clips, rows) == {"a": "c", "b": "c"}
    chain = as_rows(clips, pairs[:2], "m")  # c is like b and b like a: what was dropped takes no other with it
    assert stand_ins(clips, chain) == {"b": "c"}


def test_groups_of_neighbours_find_what_all_pairs_find() -> None:
    """3000 vectors, 300 of them near copies: buckets against all pairs."""
    rng = np.random.default_rng(5)
    base = rng.normal(size=(2700, 64))
    copies = base[rng.choice(2700, 300, replace=False)] + rng.normal(size=(300, 64)) * 0.1
    vectors = unit_rows(np.concatenate([base, copies]))
    every = set(candidates(vectors, NEAR))
    some = set(candidates(vectors, dataclasses.replace(NEAR, all_pairs_to=100, group_size=200)))
    assert len(every) >= 300
    assert some <= every
    assert len(some) >= 0.98 * len(every)


def test_a_crowd_of_like_clips_weighs_less_than_its_number() -> None:
    crowd = [known(f"a{i:02d}", pan(1, 0.01 * i, 3)) for i in range(12)]
    single = [known(f"b{i}", pan(40 + i, 0, 3)) for i in range(3)]
    rows = {r.clip_id: r for r in group([*crowd, *single], DedupConfig(groups=4), "m")}
    assert np.mean([r.weight for r in rows.values()]) == pytest.approx(1, abs=1e-4)
    assert rows["a00"].size >= 12
    assert rows["b0"].weight > 1.5 * rows["a00"].weight
    assert {r.space for r in rows.values()} == {"pixels"}


def test_the_manifest_takes_weights_over_and_leaves_twins_out() -> None:
    rows = [{"clip_id": c} for c in "abc"]
    pairs = [Duplicate(clip_id=o, kept_clip_id=b, cosine=0.9, why="order") for o, b in (("a", "b"), ("c", "elsewhere"))]
    kept = _without_twins(rows, DUPLICATES.from_rows(pairs), [(None, 0.5)])
    assert [r["clip_id"] for r in kept] == ["b", "c"]
    assert _without_twins(rows, DUPLICATES.from_rows(pairs), []) == rows
    weighted = _weighted(kept, [{"clip_id": "b", "weight": 0.5}])
    assert [r["weight"] for r in weighted] == [pytest.approx(2 / 3, abs=1e-6), pytest.approx(4 / 3, abs=1e-6)]


def _smaller(frames: list[np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(Image.fromarray(f).resize((120, 72), Image.Resampling.BOX)) for f in frames]


def test_a_twin_is_found_in_another_batch_whichever_came_first(tmp_path: Path) -> None:
    make_video(tmp_path / "new" / "a.mp4", shot(1, 50) + shot(2, 40))
    make_video(tmp_path / "old" / "b.mkv", _smaller(shot(1, 50)[10:]) + shot(7, 40))
    config = CurationConfig(policy=PolicyConfig(bounds=("too_short.min=1.0", "text=off", "watermark=off", "blur=off")))
    found = []
    for order in (("new", "old"), ("old", "new")):
        store = Store(tmp_path / "-".join(order)).create()
        for name in (*order, order[0]):  # the first batch is asked again after the second came
            batches.register(store, batches.Batch(name=name, folder=str(tmp_path / name), kind=batches.FOOTAGE))
            stages = (VIDEOS_STAGE, SCAN_STAGE, SHOTS_STAGE, SIGNAL_SCORES_STAGE, FINGERPRINTS_STAGE)
            for stage in (*stages, DUPLICATES_STAGE, VERDICTS_STAGE):
                run_stage(stage, store, config, batch=name if stage.partitioned else None)
        found.append((store.read(DUPLICATES), store.read(CLUSTERS), store.read(SELECTIONS)))
        (row,) = store.read(DUPLICATES).to_pylist()
        assert (row["batch"], row["kept_batch"], row["why"]) == ("old", "new", "resolution")
        assert row["shift_s"] == pytest.approx(0.4, abs=0.11)
        reasons = {r["clip_id"]: r["reasons"] for r in store.read(SELECTIONS).to_pylist()}
        assert reasons[row["clip_id"]] == ["near_duplicate"]
        assert store.read(CLUSTERS).num_rows == store.read(CLIPS).num_rows
        narrow = dataclasses.replace(config, policy=PolicyConfig(bounds=(*config.policy.bounds, "clips.width.max=150")))
        run_stage(VERDICTS_STAGE, store, narrow, batch="old")  # the larger twin's scores lie in another batch
        reasons = {r["clip_id"]: r["reasons"] for r in store.read(SELECTIONS, batch="old").to_pylist()}
        assert reasons[row["clip_id"]] == []
        rules = narrow.policy.resolved()
        kept = whatif.answer(whatif.ask(store, rules, ["old"]))["after"]["keep"]["clips"]
        assert kept == sum(not r for r in reasons.values())
    assert all(a.equals(b) for a, b in zip(*found))
