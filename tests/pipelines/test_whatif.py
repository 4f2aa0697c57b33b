"""What-if says what the policy would say, clip by clip, without asking it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration import cli
from pipelines.policy import presets, whatif, whatif_count
from pipelines.policy.rules import CLASSICAL, PolicyConfig, Rule, move_bound, read_policy
from pipelines.policy.scoreboard import COLUMNS, DOCUMENTED, SCOREBOARD, standing
from pipelines.policy.verdicts import skipped
from pipelines.scorers import SCORERS
from schemas.errors import ConfigError, UsageError
from schemas.scores import DUPLICATES
from schemas.store import Store
from schemas.verdicts import SELECTIONS
from tests.house import BATCH
from tests.pipelines import boards

MOVES = (
    (),
    ("blur.min=0.4",),
    ("blur=off", "text.max=0.5"),
    ("short.max=6", "short.min=none", "dark.min=0.5"),
    ("score_text.area.min=0.2",),
    ("clip.min=0.4",),
    ("short=off", "dark=off", "blur=off", "text=off", "clip=off"),
)


def moved(bounds: tuple[str, ...]) -> tuple[Rule, ...]:
    rules = boards.STOOD
    for bound in bounds:
        rules = move_bound(rules, bound)
    return rules


@pytest.mark.parametrize("bounds", MOVES, ids=" ".join)
def test_it_counts_what_the_policy_would_decide(tmp_path: Path, bounds: tuple[str, ...]) -> None:
    """Two batches, one of which the CLIP does not know: sums over both, rule by rule, pair by pair."""
    store, rules = Store(tmp_path).create(), moved(bounds)
    was, now, length, shape = {}, {}, {}, {}
    for batch, foreign in (("a", False), ("b", True)):
        clips, scores = boards.random_clips(len(batch) + foreign, 150)
        boards.commit(store, batch, clips, scores, foreign=foreign)
        skip = {"clip": "foreign"} if foreign else {}
        was.update(boards.judged(clips, scores, boards.STOOD, skip))
        now.update(boards.judged(clips, scores, rules, skip))
        length.update({c.clip_id: c.end_s for c in clips})
        shape.update({c.clip_id: (c.width, c.height) for c in clips})
    found = whatif.answer(whatif.ask(store, rules))

    def hours(names: Any) -> float:
        return pytest.approx(sum(length[n] for n in names) / 3600, abs=1e-8)  # type: ignore[no-any-return]

    for when, verdicts in (("before", was), ("after", now)):
        for word in ("keep", "reject", "error"):
            names = [n for n, s in verdicts.items() if s.verdict == word]
            assert found[when][word] == {"clips": len(names), "hours": hours(names)}
    rejected = {n: s.reasons for n, s in now.items() if s.verdict == "reject"}
    alive = set(now)
    for step, rule in zip(found["funnel"][1:], rules):
        alive -= {n for n, reasons in rejected.items() if rule.name in reasons}
        assert (step["rule"], step["clips"], step["hours"]) == (rule.name, len(alive), hours(alive))
    assert found["funnel"][-1]["clips"] == found["after"]["keep"]["clips"]
    for i, row in enumerate(found["rules"]):
        name = row["rule"]
        assert row["rejects"]["clips"] == sum(name in r for r in rejected.values())
        assert row["only_it"]["clips"] == sum([name] == r for r in rejected.values())
        for j, other in enumerate(rules):
            both = sum(name in r and other.name in r for r in rejected.values())
            assert found["overlap"]["clips"][i][j] == both
        if i in (0, len(rules) - 1):
            again = whatif.answer(whatif.ask(store, tuple(r for r in rules if r.name != name)))
            assert row["back_without_it"]["clips"] == again["after"]["keep"]["clips"] - found["after"]["keep"]["clips"]
    assert sum(r["share_of_rejected"] for r in found["rules"]) == pytest.approx(len(rejected), abs=0.01)
    came = {n for n in now if was[n].verdict != "keep" and now[n].verdict == "keep"}
    went = {n for n in now if was[n].verdict == "keep" and now[n].verdict != "keep"}
    assert found["difference"]["came"] == {"clips": len(came), "hours": hours(came)}
    assert found["difference"]["went"] == {"clips": len(went), "hours": hours(went)}
    blamed = Counter(r for n in came for r in was[n].reasons)
    assert {k: v["clips"] for k, v in found["difference"]["came_by"].items()} == dict(blamed)
    kept = [n for n, s in now.items() if s.verdict == "keep"]
    tall = [n for n in kept if shape[n] == (90, 160)]
    assert found["left"]["aspect"].get("9:16", {"after": {"clips": 0}})["after"]["clips"] == len(tall)
    middle = [n for n in kept if 2 <= length[n] < 4]
    assert found["left"]["duration"].get("2 to 4 s", {"after": {"clips": 0}})["after"]["clips"] == len(middle)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 999),
    pairs=st.integers(0, 60),
    bounds=st.sampled_from([(), ("dark=off",), ("blur.min=0.5", "text.max=0.2"), ("twin.max=0.8", "dark.min=0.1"),
                            ("twin=off",), ("twin.min=0.2",), ("short=off", "dark=off", "blur=off", "text=off")]),
    asked=st.sampled_from([(), ("a",), ("b",)]),
)  # fmt: skip
def test_of_twins_the_best_that_other_rules_keep_stays_and_what_if_agrees(
    seed: int, pairs: int, bounds: tuple[str, ...], asked: tuple[str, ...]
) -> None:
    """Chains and crowds of twins, in one batch and across two, against the plain way."""
    stood = (*boards.STOOD, boards.LIKENESS)
    rules = stood
    for bound in bounds:
        rules = move_bound(rules, bound)
    store = Store(f"memory://whatif-twins-{seed}-{pairs}").create()
    made = {b: boards.random_clips(2 * seed + i, 25) for i, b in enumerate("ab")}
    scores = {n: s for _, some in made.values() for n, s in some.items()}
    skip = {n: {"clip": "foreign"} if b == "b" else {} for b, (_, some) in made.items() for n in some}
    twins = boards.random_pairs(seed, {b: clips for b, (clips, _) in made.items()}, pairs)
    store.commit(DUPLICATES, DUPLICATES.from_rows(twins))
    was = boards.judged_with_twins(scores, stood, skip, twins)
    now = boards.judged_with_twins(scores, rules, skip, twins)
    in_pairs = {n for t in twins for n in (t.clip_id, t.kept_clip_id)}
    for batch, (clips, some) in made.items():
        kept = {n for n, s in was.items() if s.verdict == "keep"}
        like = {
            n: max([t.cosine for t in twins if t.clip_id == n and t.kept_clip_id in kept], default=0.0) for n in some
        }
        known = {n: {**s, "duplicates.cosine": like[n]} for n, s in some.items()}
        boards.commit(store, batch, clips, known, foreign=batch == "b", rules=stood, twins=in_pairs)
    names = [n for b, (_, some) in made.items() for n in some if b in (asked or "ab")]
    found = whatif.answer(whatif.ask(store, rules, asked))
    store.fs.rm(store.path, recursive=True)
    for when, verdicts in (("before", was), ("after", now)):
        for word in ("keep", "reject", "error"):
            assert found[when][word]["clips"] == sum(verdicts[n].verdict == word for n in names)
    for i, row in enumerate(found["rules"]):
        rejected = [now[n].reasons for n in names if now[n].verdict == "reject"]
        assert row["rejects"]["clips"] == sum(row["rule"] in r for r in rejected)
        for j, other in enumerate(rules):
            both = sum(row["rule"] in r and other.name in r for r in rejected)
            assert found["overlap"]["clips"][i][j] == both
    came = [n for n in names if was[n].verdict != "keep" and now[n].verdict == "keep"]
    went = [n for n in names if was[n].verdict == "keep" and now[n].verdict != "keep"]
    assert (found["difference"]["came"]["clips"], found["difference"]["went"]["clips"]) == (len(came), len(went))
    blamed = Counter(r for n in came for r in was[n].reasons)
    assert {k: v["clips"] for k, v in found["difference"]["came_by"].items()} == dict(blamed)
    left = {
        when: sum(cells[when]["clips"] for cells in found["left"]["aspect"].values()) for when in ("before", "after")
    }
    assert left == {"before": found["before"]["keep"]["clips"], "after": found["after"]["keep"]["clips"]}


@pytest.mark.parametrize("most", [13, 40])
def test_many_moved_rules_are_counted_too(tmp_path: Path, most: int) -> None:
    """More sets of rules than fit an array of codes, and more rules than bits of a small integer."""
    store = Store(tmp_path).create()
    clips, scores = boards.random_clips(9, 200)
    boards.commit(store, "a", clips, scores)
    known = {c for s in scores.values() for c in s}
    bounds = [(c, side, b) for b in (0.1, 0.3, 0.5, 0.9) for c in sorted(known) for side in ("min", "max")]
    rules = tuple(
        Rule(name=f"r{i}", column=c, reason="r", **{side: b})  # type: ignore[arg-type]
        for i, (c, side, b) in enumerate(bounds[-most:])
    )
    found = whatif.answer(whatif.ask(store, rules))
    judged = boards.judged(clips, scores, rules, {})
    assert {w: a["clips"] for w, a in found["after"].items() if a["clips"]} == Counter(
        s.verdict for s in judged.values()
    )
    for row in found["rules"]:
        assert row["rejects"]["clips"] == sum(
            s.verdict == "reject" and row["rule"] in s.reasons for s in judged.values()
        )


def test_only_columns_of_moved_rules_are_read(tmp_path: Path) -> None:
    store = Store(tmp_path).create()
    boards.commit(store, "a", *boards.random_clips(0, 5))
    commit = store.committed(SCOREBOARD, "a")
    assert commit is not None
    stands = standing(commit)
    unmoved = whatif_count.plan(stands, boards.STOOD, {})
    assert (len(unmoved.standing), unmoved.moved) == (len(boards.STOOD), ())
    asking = whatif_count.plan(stands, moved(("blur.min=0.4", "dark=off")), {})
    assert asking.columns[4:] == ["blur_edge"]
    assert set(asking.standing) == {"short", "text", "clip"}


def test_an_object_store_answers_the_same(tmp_path: Path) -> None:
    clips, scores = boards.random_clips(3, 80)
    local, remote = Store(tmp_path).create(), Store("memory://whatif-test").create()
    found = []
    for store in (local, remote):
        boards.commit(store, "a", clips, scores)
        found.append(whatif.answer(whatif.ask(store, moved(("blur.min=0.5",)))))
    assert found[0] == found[1]


def test_what_cannot_be_answered_says_what_to_do(tmp_path: Path) -> None:
    store = Store(tmp_path).create()
    with pytest.raises(UsageError, match="dailies stage verdicts"):
        whatif.ask(store, boards.STOOD)
    boards.commit(store, "a", *boards.random_clips(0, 5))
    with pytest.raises(UsageError, match="--batch b"):
        whatif.ask(store, boards.STOOD, ["b"])
    path = store.table_path(SCOREBOARD, "a")
    whole = pq.ParquetFile(path).read()
    pq.write_table(whole.drop_columns(["blur_sharpness"]), path)
    with pytest.raises(UsageError, match="made before that score was"):
        whatif.ask(store, move_bound(boards.STOOD, "score_blur.sharpness.min=0.1"))


def test_every_score_is_on_the_board_with_its_meaning() -> None:
    names = {f"{s.table.name}.{c}" for s in SCORERS for c in s.columns}
    assert names <= set(COLUMNS)
    assert len(set(COLUMNS.values())) == len(COLUMNS)
    assert all(meaning for meaning, _, _ in DOCUMENTED.values())
    assert SCOREBOARD.schema.field("blur_edge").metadata[b"doc"]


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_is_a_policy_and_drops_nothing(name: str) -> None:
    found = presets.describe(name)
    rules = PolicyConfig(file=f"preset:{name}").resolved()
    assert len(rules) == len(found.get("rule", [])) + len(found.get("not_applied", [])) > 0
    assert found["source"]
    assert all(r.reason and r.column in COLUMNS for r in rules if not r.not_applied)
    skip = skipped(rules, set(), False)
    assert {r.name for r in rules if r.not_applied} == {n for n, why in skip.items() if why.startswith("not applied")}


def test_a_preset_rule_over_an_unknown_column_is_listed_and_not_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {"rule": [{"name": "a", "column": "score_nothing.x", "min": 1.0, "reason": "r"}]}
    monkeypatch.setattr(presets, "describe", lambda name: plain)
    (rule,) = read_policy("preset:x")
    assert "no stage of this installation writes `score_nothing.x`" in rule.not_applied


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean `cosmos`"):
        read_policy("preset:cosmo")


def test_the_command_on_a_real_root(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def dailies(*words: str) -> tuple[int, str, str]:
        return (cli.main(["whatif", *words, "--root", str(house)]), *capsys.readouterr())

    code, out, err = dailies("--json", "--set", "blur.min=0.3", "--recipe", "tiny", "--batch", BATCH)
    found = json.loads(out)
    assert (code, out.count("\n")) == (0, 1)
    words = Counter(Store(house).read(SELECTIONS)["verdict"].to_pylist())
    assert {w: a["clips"] for w, a in found["before"].items()} == {w: words[w] for w in ("keep", "reject", "error")}
    assert [r["rule"] for r in found["rules"] if r["moved"]] == ["blur"]
    code, out, err = dailies("--policy", "preset:cosmos", "--recipe", "tiny")
    assert "not decided by vlm: not applied" in out
    assert "next: dailies stage verdicts --set curation.policy.file=preset:cosmos" in err
    for words_, says in (
        (("--set", "blru.min=1"), "did you mean `blur`"),
        (("--set", "score_blur.egde.min=1"), "near it: score_blur.edge"),
        (("--policy", "/no/such.toml"), "no/such.toml"),
        (("--batch", "nowhere"), "no batch `nowhere`"),
        (("--set", "curation.policy.fil=x"), "did you mean `file`"),
    ):
        code, out, err = dailies(*words_, "--recipe", "tiny")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert says in err


def test_rules_in_code_can_be_asked_about() -> None:
    assert len(CLASSICAL) <= 62
    with pytest.raises(ConfigError, match="not a number"):
        move_bound(CLASSICAL, "blur.min=nan")
