"""The policy: a pure function from numbers to words."""

from pathlib import Path

import hypothesis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import strategies as st

from pipelines.policy.rules import CLASSICAL, WITH_CLIP, PolicyConfig, Rule, judge, move_bound, select
from pipelines.policy.twins import Pairs, keys_of
from pipelines.policy.verdicts import damaged_share, skipped
from pipelines.recipes import RECIPES
from schemas.errors import ConfigError
from schemas.settings import recipe
from schemas.verdicts import Verdict
from tests.pipelines.scorers.test_scorers import clip

RULES = (
    Rule(name="a", column="score_x.y", min=0.2, max=0.8, reason="outside"),
    Rule(name="b", column="score_z.w", max=1.0, reason="too much"),
)


@hypothesis.given(st.floats(-2, 2), st.one_of(st.none(), st.floats(-2, 2)))
def test_a_clip_is_kept_exactly_when_every_score_is_within_its_bounds(x: float, w: float | None) -> None:
    rows = judge("c", {"score_x.y": x, "score_z.w": w}, RULES, {}, "m")
    verdict = select("c", rows, "m").verdict
    inside = 0.2 <= x <= 0.8
    if not inside or (w is not None and w > 1):
        assert verdict == Verdict.REJECT
    else:
        assert verdict == (Verdict.ERROR if w is None else Verdict.KEEP)


def test_an_error_is_never_a_rejection() -> None:
    rows = judge("c", {"score_x.y": None}, RULES, {}, "m")
    assert [r.verdict for r in rows] == [Verdict.ERROR, Verdict.ERROR]
    assert select("c", rows, "m").verdict == Verdict.ERROR


def test_a_skipped_rule_decides_nothing_and_says_why() -> None:
    rows = judge("c", {"score_x.y": 5.0, "score_z.w": 0.0}, RULES, {"a": "knows nothing of it"}, "m")
    assert (rows[0].verdict, rows[0].reason) == (Verdict.SKIPPED, "knows nothing of it")
    assert select("c", rows, "m").verdict == Verdict.KEEP


def test_a_rejection_says_score_bound_and_reason() -> None:
    (row,) = judge("c", {"score_x.y": 0.1}, RULES[:1], {}, "m")
    assert (row.score, row.minimum, row.maximum) == (0.1, 0.2, 0.8)
    assert row.reason == "outside: 0.1 is below 0.2"


def test_bounds_move_and_wrong_ones_are_refused() -> None:
    moved = move_bound(CLASSICAL, "blur.min=0.5")
    assert next(r.min for r in moved if r.name == "blur") == 0.5
    assert "text" not in {r.name for r in move_bound(CLASSICAL, "text=off")}
    for wrong in ("blurr.min=1", "blur.mean=1", "blur.min=high", "blur"):
        with pytest.raises(ConfigError):
            move_bound(CLASSICAL, wrong)


def test_a_policy_file_gives_the_same_rules(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('[[rule]]\nname = "a"\ncolumn = "score_x.y"\nmin = 0.2\nmax = 0.8\nreason = "outside"\n')
    assert PolicyConfig(file=str(path)).resolved() == RULES[:1]
    path.write_text('[[rule]]\nname = "a"\ncolumn = "score_x.y"\nreason = "no bound"\n')
    with pytest.raises(ConfigError, match="neither min nor max"):
        PolicyConfig(file=str(path)).resolved()
    with pytest.raises(ConfigError, match="absent"):
        PolicyConfig(file=str(tmp_path / "absent.toml")).resolved()


def test_the_damaged_share_counts_overlap_and_forgives_rounding() -> None:
    whole = clip(50)  # two seconds
    assert damaged_share(whole, ["0.500-1.000"]) == pytest.approx(0.25, abs=0.001)
    assert damaged_share(whole, ["1.000-end"]) == pytest.approx(0.5, abs=0.001)
    assert damaged_share(whole, ["1.9995-end", "-1.000-0.0005"]) == 0


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_build_and_take_settings(name: str) -> None:
    config = recipe(name, RECIPES, ["scan.proxy_fps=2", "policy.bounds=blur.min=0.5"])
    assert config.scan.proxy_fps == 2
    assert next(r.min for r in config.policy.resolved() if r.name == "blur") == 0.5
    with pytest.raises(ConfigError, match="proxy_fps"):
        recipe(name, RECIPES, ["scan.proxy_fp=2"])


def test_every_rule_reads_a_column_that_some_stage_writes() -> None:
    assert set(skipped(WITH_CLIP, set(), False)) == {r.name for r in WITH_CLIP}  # raises on an unknown column
    with pytest.raises(ConfigError, match=r"no stage writes; near it: score_blur\.edge"):
        skipped((Rule(name="x", column="score_blur.egde", min=0.0, reason="r"),), set(), False)


@hypothesis.given(st.lists(st.text("0123456789abcdef", min_size=1, max_size=20), max_size=8), st.integers(0, 8))
def test_a_twin_is_known_by_the_first_digits_of_its_id(ids: list[str], cut: int) -> None:
    expected = [int(i[:15], 16) for i in ids]
    whole = pa.array(ids, pa.string())
    assert keys_of(ids).tolist() == keys_of(pa.chunked_array([whole[:cut], whole[cut:]])).tolist() == expected


def test_of_twins_that_are_each_better_than_the_other_none_can_stay() -> None:
    circle = Pairs(np.array([0, 1]), np.array([1, 0]), np.array([0.9, 0.9]))
    with pytest.raises(ValueError, match="table `duplicates` is wrong"):
        circle.settle(np.ones(2, bool), [(None, 0.5)])
