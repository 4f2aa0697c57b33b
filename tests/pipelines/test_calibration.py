"""Calibration: weights are respected, intervals cover, a threshold is judged on answers that did not choose it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipelines.policy import calibration
from pipelines.policy.label_sample import Judged, draw, judged, margin, sample
from pipelines.policy.rules import Rule
from pipelines.synthetic import known
from pipelines.synthetic.evaluate import DEFECT_RULES
from schemas.labels import LABELS, Design, Label, Labelled, append, lines, standing_labels
from schemas.store import Store
from tests.pipelines import boards

RULE = Rule(name="blur", column="score_blur.edge", min=0.3, reason="blurred")


def population(seed: int, count: int = 4000) -> tuple[Judged, dict[str, bool]]:
    """Clips of which the blurred ones score low, but not all of them, and some sharp ones do too."""
    rng = np.random.default_rng(seed)
    scores = rng.random(count)
    positive = rng.random(count) < 1 / (1 + np.exp((scores - 0.25) * 18))
    ids = np.array([f"{rng.integers(1 << 62):016x}" for _ in range(count)], dtype=object)
    return Judged(RULE, ids, scores), {str(i): bool(p) for i, p in zip(ids, positive)}


def answers(found: Judged, truth: dict[str, bool], design: Design, until: int | None = None) -> calibration.Answers:
    drawn = draw(found, design)
    said = {(q.rule, q.clip_id): Label.REJECT if truth[q.clip_id] else Label.KEEP for q in drawn[:until]}
    return calibration.answered(drawn, said)


def test_the_sample_is_even_over_strata_and_stays_when_footage_is_added() -> None:
    found, _ = population(0)
    drawn = draw(found, Design(per_stratum=10))
    strata = {q.stratum: q.stratum_size for q in drawn}
    assert len(drawn) == 60
    assert sum(strata.values()) == 4000
    assert {q.rejected for q in drawn if q.stratum.startswith("reject")} == {True}
    near = [abs(q.score - 0.3) for q in drawn if q.stratum == "keep_near"]
    far = [abs(q.score - 0.3) for q in drawn if q.stratum == "keep_far"]
    assert max(near) < min(far)
    assert len({q.stratum for q in drawn[:6]}) == 6, "the first answers are of all strata"
    more, _ = population(1, 200)
    grown = Judged(RULE, np.append(found.ids, more.ids), np.append(found.scores, more.scores))
    same = {q.clip_id for q in draw(grown, Design(per_stratum=10))} & {q.clip_id for q in drawn}
    assert len(same) >= 50
    assert draw(found, Design(per_stratum=10)) == drawn
    assert {q.clip_id for q in draw(found, Design(seed=1, per_stratum=10))} != {q.clip_id for q in drawn}


def test_estimates_are_unbiased_and_intervals_cover() -> None:
    """Over 200 samples of one population, every third half answered; the unweighted share would be far off."""
    found, truth = population(3)
    positive = np.array([truth[str(i)] for i in found.ids])
    rejected = margin(RULE, found.scores) < 0
    precision, recall = positive[rejected].mean(), rejected[positive].mean()
    seen: dict[str, list[float]] = {"precision": [], "recall": []}
    covered: dict[str, list[bool]] = {"precision": [], "recall": []}
    plain = []
    for seed in range(200):
        got = answers(found, truth, Design(seed=seed, per_stratum=25), until=75 if seed % 3 == 0 else None)
        rates = calibration.measure(RULE, got)
        for name, true in (("precision", precision), ("recall", recall)):
            seen[name].append(rates[name]["value"])
            covered[name].append(rates[name]["low"] <= true <= rates[name]["high"])
        plain.append((margin(RULE, got.scores) < 0)[got.positive].mean())
    for name, true in (("precision", precision), ("recall", recall)):
        assert np.mean(seen[name]) == pytest.approx(true, abs=0.015)
        assert np.mean(covered[name]) >= 0.92
    assert abs(np.mean(seen["recall"]) - recall) < abs(np.mean(plain) - recall) / 3


def test_a_census_gives_plain_counts() -> None:
    found, truth = population(5, 300)
    got = calibration.measure(RULE, calibration.known(found, truth))
    positive = np.array([truth[str(i)] for i in found.ids])
    rejected = margin(RULE, found.scores) < 0
    assert got["precision"]["value"] == pytest.approx(positive[rejected].mean(), abs=1e-6)
    assert got["recall"]["value"] == pytest.approx(rejected[positive].mean(), abs=1e-6)
    assert got["precision"]["n_effective"] == pytest.approx(rejected.sum(), rel=0.02)
    assert got["better_than_chance"] is True


def test_wilson_is_the_textbooks() -> None:
    from scipy.stats import binomtest

    for hits, n in ((0, 5), (3, 7), (9, 9), (50, 120)):
        low, high = calibration.wilson(hits / n, n)
        known_ = binomtest(hits, n).proportion_ci(method="wilson")
        assert (low, high) == (pytest.approx(known_.low), pytest.approx(known_.high))
    assert calibration.wilson(0.0, 0) == (0.0, 1.0)


def test_a_threshold_is_chosen_on_one_half_and_judged_on_the_other() -> None:
    found, truth = population(7)
    every = calibration.known(found, truth)
    chosen = calibration.threshold(RULE, every, 0.9)
    positive = np.array([truth[str(i)] for i in found.ids])
    below = found.scores < chosen["bound"]
    assert positive[below].mean() == pytest.approx(0.9, abs=0.03)
    assert chosen["chosen_on"] + chosen["judged_on"] == 4000
    assert chosen["precision"]["value"] == pytest.approx(0.9, abs=0.04)
    looser = dataclasses.replace(RULE, min=chosen["bound"] + 0.05)
    assert calibration.measure(looser, every)["precision"]["value"] < 0.9
    none = calibration.threshold(RULE, calibration.known(found, dict.fromkeys(truth, False)), 0.9)
    assert none["bound"] is None
    assert "no bound" in none["why"]
    assert calibration.threshold(RULE, calibration.known(found, {}), 0.9)["bound"] is None


def test_a_rule_with_nothing_to_find_says_so() -> None:
    found, truth = population(2, 50)
    got = calibration.measure(RULE, calibration.known(found, dict.fromkeys(truth, False)))
    assert got["recall"]["value"] is None
    assert got["precision"]["value"] == 0.0
    assert got["better_than_chance"] is False


def test_labels_are_appended_and_the_last_word_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for clip, label in (("a", "keep"), ("a", "reject"), ("b", "skip"), ("c", "keep"), ("c", "undo")):
        append(store, Labelled(rule="blur", clip_id=clip, label=label, score=0.5))
    with open(store.at(*LABELS), "ab") as f:
        f.write(b'{"rule": "blur", "clip_id": "d", "la')  # a crash
    append(store, Labelled(rule="blur", clip_id="e", label="keep"))
    assert standing_labels(store) == {("blur", "a"): "reject", ("blur", "b"): "skip", ("blur", "e"): "keep"}
    assert len(list(lines(store))) == 6


def test_every_rule_that_decides_is_asked_about(tmp_path: Path) -> None:
    store = Store(tmp_path).create()
    for batch in ("a", "b"):
        boards.commit(store, batch, *boards.random_clips(4, 60), foreign=batch == "b")  # the same clips twice
    sizes = {f.rule.name: len(f.ids) for f in judged(store)}
    assert set(sizes) == {r.name for r in boards.STOOD}
    assert max(sizes.values()) == 60
    drawn = sample(store, Design(per_stratum=3))
    assert len(drawn) == len({(q.rule, q.clip_id) for q in drawn}) > 40


def test_what_a_rule_may_find_follows_from_the_defects() -> None:
    kinds = known.kinds()
    assert kinds["static"] == kinds["freeze"] == {"static", "freeze"}
    assert kinds["blur"] == {"blur"}
    assert {r for rules in DEFECT_RULES.values() for r in rules} - set(kinds) == {"letterbox"}
