"""What if: the policy asked again with other rules, from Parquet alone.

One pass over the scoreboard (`whatif_count.py`) gives, for every set of rules that reject together, how many clips
and how many seconds; the funnel, the overlap, each rule's effect, the hours that are left and the difference to what
stands all follow from those few rows.  Clips that show the same as another are settled after it (`whatif_twins.py`):
where a rule gives way and a better twin comes back, the lesser one that was kept in its place goes.  What a rule would
give back alone counts clips, not their twins.  Hours are sums of doubles by chunk, rounded to nanohours.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.policy.rules import Rule
from pipelines.policy.scoreboard import SCOREBOARD, Standing, standing
from pipelines.policy.twins import batches_of_twins, reads_twins
from pipelines.policy.verdicts import skipped
from pipelines.policy.whatif_count import BANDS_S, Counts, count, plan, same
from pipelines.policy.whatif_twins import read_pairs, settle
from schemas.errors import UsageError
from schemas.store import Store

_WORDS = ("keep", "reject", "error")


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Clips that fare alike."""

    clips: int
    seconds: float
    was: str
    """Standing verdict."""
    rejecting: int
    """Bits of the rules asked about that reject."""
    erring: int
    aspect: str
    """Empty for clips that are kept neither before nor after."""
    band: int
    """How many of `BANDS_S` its length reaches."""

    @property
    def now(self) -> str:
        return "reject" if self.rejecting else "error" if self.erring else "keep"


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """The groups, and which rules did not decide everywhere."""

    rules: tuple[Rule, ...]
    groups: tuple[Group, ...]
    came_from: Mapping[tuple[str, ...], tuple[int, float]]
    """Clips and seconds that come back, by the rules that had spoken against them."""
    skipped: Mapping[str, str]
    """Rule to the reason, if it decides in no batch or not in all."""
    before: tuple[Rule, ...]
    """The policy that stands, of the first batch asked."""
    batches: tuple[str, ...]


def ask(store: Store, rules: Sequence[Rule], batches: Sequence[str] = (), threads: int | None = None) -> Asked:
    """Judge every clip of some batches (all where none is named) by other rules.

    Raises:
        UsageError: If a batch has no scoreboard yet, or a rule reads what no stage writes.
    """
    names = list(batches) or store.batches(SCOREBOARD)
    alike: dict[str, list[str]] = {}
    known: dict[str, Standing] = {}
    for name in names:
        commit = store.committed(SCOREBOARD, name)
        if commit is None:
            raise UsageError(
                f"batch {name} has no scoreboard yet: make it with `dailies stage verdicts --batch {name}`"
            )
        stands = standing(commit)
        alike.setdefault(stands.as_metric(), []).append(name)
        known[stands.as_metric()] = stands
    if not names:
        raise UsageError(f"root {store.root} has no scoreboard yet: make it with `dailies stage verdicts`")
    total, elsewhere = Counts(), Counts()
    why: dict[str, set[str]] = {}
    keys, pairs = read_pairs(store)
    for key, some in alike.items():
        skip = skipped(tuple(rules), known[key].tables, known[key].foreign)
        for name, reason in skip.items():
            why.setdefault(name, set()).add(reason)
        total.add(count(store, some, plan(known[key], rules, skip, len(keys) > 0), threads))
    for name in sorted(batches_of_twins(store, names)) if any(map(reads_twins, rules)) else ():
        if (commit := store.committed(SCOREBOARD, name)) is not None:
            stands = standing(commit)
            skip = skipped(tuple(rules), stands.tables, stands.foreign)
            elsewhere.add(count(store, [name], plan(stands, rules, skip, True), threads))
    if total.twins:
        settle(total, elsewhere.twins, rules, keys, pairs)
    first = known[next(iter(alike))]
    reasons = {name: "; ".join(sorted(found)) for name, found in why.items()}
    groups = tuple(Group(n, seconds, *key) for key, (n, seconds) in sorted(total.groups.items()))
    return Asked(tuple(rules), groups, dict(sorted(total.came_from.items())), reasons, first.rules, tuple(names))


def answer(asked: Asked) -> dict[str, Any]:
    """All that is shown, as one object of plain values."""
    amounts = np.array([[g.clips, g.seconds] for g in asked.groups], np.float64).reshape(-1, 2)
    reject = np.array([g.rejecting for g in asked.groups], np.int64)
    err = np.array([g.erring for g in asked.groups], np.int64)
    was, now = (np.array([getattr(g, k) for g in asked.groups], dtype=object) for k in ("was", "now"))
    return {
        "batches": list(asked.batches),
        "before": {w: _amount(amounts[was == w]) for w in _WORDS},
        "after": {w: _amount(amounts[now == w]) for w in _WORDS},
        "funnel": _funnel(asked, amounts, reject, err),
        "rules": [_rule(asked, i, amounts, reject, err) for i in range(len(asked.rules))],
        "overlap": _overlap(asked, amounts, reject),
        "left": _left(asked),
        "difference": _difference(asked),
    }


def _amount(rows: Any) -> dict[str, Any]:
    total = np.asarray(rows, np.float64).reshape(-1, 2).sum(axis=0)
    return {"clips": int(total[0]), "hours": round(float(total[1]) / 3600, 9)}


def _funnel(asked: Asked, amounts: np.ndarray, reject: np.ndarray, err: np.ndarray) -> list[dict[str, Any]]:
    """Clips that are left after each rule in turn, then after errors."""
    alive = np.ones(len(amounts), bool)
    steps = [{"rule": "all clips", **_amount(amounts), "lost": _amount(amounts[:0])}]
    for i, rule in enumerate(asked.rules):
        falls = alive & (reject >> i & 1 == 1)
        alive &= ~falls
        steps.append({"rule": rule.name, **_amount(amounts[alive]), "lost": _amount(amounts[falls])})
    falls = alive & (err != 0)
    steps.append({"rule": "no score", **_amount(amounts[alive & ~falls]), "lost": _amount(amounts[falls])})
    return steps


def _rule(asked: Asked, index: int, amounts: np.ndarray, reject: np.ndarray, err: np.ndarray) -> dict[str, Any]:
    """One rule's bounds, what it rejects, and what would come back without it."""
    rule, bit = asked.rules[index], 1 << index
    stood = next((r for r in asked.before if r.name == rule.name), None)
    mine = reject & bit != 0
    back = ((reject | err) & bit != 0) & (reject & ~bit == 0) & (err & ~bit == 0)
    sharing = np.bitwise_count(reject).clip(1)
    return {
        "rule": rule.name,
        "column": rule.column,
        "min": rule.min,
        "max": rule.max,
        "stood": None if stood is None else {"min": stood.min, "max": stood.max, "column": stood.column},
        "moved": stood is None or not same(stood, rule),
        "skipped": asked.skipped.get(rule.name, ""),
        "rejects": _amount(amounts[mine]),
        "errors": _amount(amounts[err & bit != 0]),
        "only_it": _amount(amounts[reject == bit]),
        "back_without_it": _amount(amounts[back]),
        "share_of_rejected": round(float((amounts[mine, 0] / sharing[mine]).sum()), 3),
    }


def _overlap(asked: Asked, amounts: np.ndarray, reject: np.ndarray) -> dict[str, Any]:
    """Clips that two rules both reject; on the diagonal, what each does."""
    bits = np.array([reject >> i & 1 for i in range(len(asked.rules))], np.float64)
    both = np.einsum("ig,jg,g->ij", bits, bits, amounts[:, 0]) if len(bits) else np.zeros((0, 0))
    return {"rules": [r.name for r in asked.rules], "clips": both.round().astype(int).tolist()}


def band_names() -> list[str]:
    """Names of the lengths between `BANDS_S`."""
    inner = [f"{a:g} to {b:g} s" for a, b in itertools.pairwise(BANDS_S)]
    return [f"under {BANDS_S[0]:g} s", *inner, f"{BANDS_S[-1]:g} s and more"]


def _left(asked: Asked) -> dict[str, Any]:
    """What is kept, by aspect ratio and by length, before and after."""
    tables: dict[str, dict[str, dict[str, list[tuple[int, float]]]]] = {"aspect": {}, "duration": {}}
    names = band_names()
    for g in asked.groups:
        for when, word in (("before", g.was), ("after", g.now)):
            if word == "keep":
                for kind, value in (("aspect", g.aspect), ("duration", names[g.band])):
                    cell = tables[kind].setdefault(value, {"before": [], "after": []})
                    cell[when].append((g.clips, g.seconds))
    order = {name: i for i, name in enumerate(names)}
    return {
        kind: {
            name: {when: _amount(rows) for when, rows in cells.items()}
            for name, cells in sorted(found.items(), key=lambda kv: (order.get(kv[0], 0), kv[0]))
        }
        for kind, found in tables.items()
    }


def _difference(asked: Asked) -> dict[str, Any]:
    """Clips whose verdict changes, and by which rules."""
    came = [g for g in asked.groups if g.was != "keep" and g.now == "keep"]
    went = [g for g in asked.groups if g.was == "keep" and g.now != "keep"]

    def total(groups: Sequence[Group]) -> dict[str, Any]:
        return _amount([(g.clips, g.seconds) for g in groups])

    def by(index: int, group: Group) -> bool:
        return bool((group.rejecting or group.erring) >> index & 1)

    went_by = {r.name: total([g for g in went if by(i, g)]) for i, r in enumerate(asked.rules)}
    came_by = {
        name: _amount([amount for names, amount in asked.came_from.items() if name in names])
        for name in sorted({n for names in asked.came_from for n in names})
    }
    moves = {
        f"{a} to {b}": total([g for g in asked.groups if (g.was, g.now) == (a, b)])
        for a in _WORDS
        for b in _WORDS
        if a != b
    }
    return {
        "came": total(came),
        "went": total(went),
        "came_by": came_by,
        "went_by": {n: v for n, v in went_by.items() if v["clips"]},
        "moves": {n: v for n, v in moves.items() if v["clips"]},
    }
