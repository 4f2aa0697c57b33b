"""What if: the policy asked again with other rules, from Parquet alone.

One pass over the scoreboard gives, for every set of rules that reject together, how many clips and how many
seconds; everything that is shown follows from those few rows.  A rule that stands as it stood is read from its
bit; only rules that were moved or are new read their score.  Whole hours come from sums of doubles in no fixed
order, so they are rounded to the microsecond.

Cost: the columns of the moved rules, two columns of bits, the length and the standing verdict: see
`benchmarks/whatif.py`.  Memory: DuckDB streams the files under a limit; the groups are a few thousand rows.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.policy import Rule
from pipelines.scoreboard import COLUMNS, SCOREBOARD, Standing, standing
from pipelines.verdicts import skipped
from schemas.errors import UsageError
from schemas.store import Store

BANDS_S = (2.0, 4.0, 8.0, 16.0, 32.0)
"""Lengths at which the hours that are left are counted apart, s."""
MEMORY_LIMIT = "1GB"
_WORDS = ("keep", "reject", "error")


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Clips that fare alike."""

    clips: int
    seconds: float
    was: str
    """Standing verdict."""
    was_by: frozenset[str]
    """Rules that reject it (or err) as things stand."""
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
    groups: list[Group] = []
    why: dict[str, set[str]] = {}
    for key, some in alike.items():
        skip = skipped(tuple(rules), known[key].tables, known[key].foreign)
        for name, reason in skip.items():
            why.setdefault(name, set()).add(reason)
        groups += _count(store, some, known[key], rules, skip, threads)
    first = known[next(iter(alike))]
    reasons = {name: "; ".join(sorted(found)) for name, found in why.items()}
    return Asked(tuple(rules), tuple(groups), reasons, first.rules, tuple(names))


def query(stands: Standing, rules: Sequence[Rule], skip: Mapping[str, str]) -> tuple[str, list[str]]:
    """The SELECT over `board`, and the score columns it reads."""
    places = {r.name: i for i, r in enumerate(stands.rules)}
    terms: dict[str, list[str]] = {"rejecting": [], "erring": []}
    kept_bits: dict[int, int] = {}
    needs = []
    for i, rule in enumerate(rules):
        if rule.name in skip:
            continue
        place = places.get(rule.name)
        if place is not None and _same(stands.rules[place], rule) and rule.name not in stands.skipped:
            kept_bits[i - place] = kept_bits.get(i - place, 0) | 1 << place
            continue
        here = f'"{COLUMNS[rule.column]}"'
        needs.append(COLUMNS[rule.column])
        outside = [f"{here} < {rule.min!r}::DOUBLE"] if rule.min is not None else []
        outside += [f"{here} > {rule.max!r}::DOUBLE"] if rule.max is not None else []
        terms["rejecting"].append(f"CASE WHEN {' OR '.join(outside)} THEN {1 << i} ELSE 0 END")
        terms["erring"].append(f"CASE WHEN {here} IS NULL THEN {1 << i} ELSE 0 END")
    for shift, mask in kept_bits.items():
        for bits, found in terms.items():
            part = f"({bits} & {mask})"
            found.append(part if not shift else f"({part} << {shift})" if shift > 0 else f"({part} >> {-shift})")
    reject, err = (" + ".join(found) or "0::BIGINT" for found in terms.values())
    band = " + ".join(f"(seconds >= {b!r}::DOUBLE)::INT" for b in BANDS_S)
    text = f"""
        WITH judged AS (
            SELECT verdict, rejecting AS was_rejecting, erring AS was_erring, ({reject})::BIGINT AS now_rejecting,
                   ({err})::BIGINT AS now_erring, aspect, seconds FROM board)
        SELECT verdict, was_rejecting, was_erring, now_rejecting, now_erring,
               CASE WHEN verdict = 'keep' OR now_rejecting + now_erring = 0 THEN aspect ELSE '' END AS aspect,
               CASE WHEN verdict = 'keep' OR now_rejecting + now_erring = 0 THEN {band} ELSE 0 END AS band,
               count(*) AS clips, sum(seconds) AS seconds
        FROM judged GROUP BY ALL"""  # noqa: S608 - numbers, and names from COLUMNS
    return text, sorted(set(needs))


def _same(a: Rule, b: Rule) -> bool:
    return (a.column, a.min, a.max, bool(a.not_applied)) == (b.column, b.min, b.max, bool(b.not_applied))


def _count(
    store: Store,
    batches: Sequence[str],
    stands: Standing,
    rules: Sequence[Rule],
    skip: Mapping[str, str],
    threads: int | None,
) -> list[Group]:
    """Groups of the batches that were judged by one policy."""
    import duckdb

    text, needs = query(stands, rules, skip)
    paths = [store.table_path(SCOREBOARD, b) for b in batches]
    with duckdb.connect(":memory:", config={"memory_limit": MEMORY_LIMIT}) as connection:
        if threads is not None:
            connection.execute(f"SET threads = {int(threads)}")
        try:
            if store.is_local:
                quoted = ", ".join("'" + p.replace("'", "''") + "'" for p in paths)
                connection.execute(
                    f"CREATE VIEW board AS SELECT * FROM read_parquet([{quoted}], hive_partitioning = false)"  # noqa: S608
                )
            else:
                import pyarrow.dataset as ds

                connection.register("board", ds.dataset(paths, filesystem=store.fs, format="parquet"))
            found = connection.execute(text).fetchall()
        except duckdb.BinderException as e:
            raise UsageError(
                f"the scoreboard of batch {batches[0]} has no column for {', '.join(needs)}: it was made before that "
                f"score was; run `dailies stage verdicts --batch {batches[0]}`"
            ) from e
    words = [r.name for r in stands.rules]
    named = {
        bits: frozenset(n for i, n in enumerate(words) if bits >> i & 1) for bits in {row[1] or row[2] for row in found}
    }
    return [
        Group(int(n), float(s or 0.0), was, named[reject or err], int(now), int(lost), aspect, int(band))
        for was, reject, err, now, lost, aspect, band, n, s in found
    ]


def answer(asked: Asked) -> dict[str, Any]:
    """All that is shown, as one object of plain values."""
    count = np.array([[g.clips, g.seconds] for g in asked.groups], np.float64).reshape(-1, 2)
    reject = np.array([g.rejecting for g in asked.groups], np.int64)
    err = np.array([g.erring for g in asked.groups], np.int64)
    was, now = (np.array([getattr(g, k) for g in asked.groups], dtype=object) for k in ("was", "now"))
    return {
        "batches": list(asked.batches),
        "before": {w: _amount(count[was == w]) for w in _WORDS},
        "after": {w: _amount(count[now == w]) for w in _WORDS},
        "funnel": _funnel(asked, count, reject, err),
        "rules": [_rule(asked, i, count, reject, err) for i in range(len(asked.rules))],
        "overlap": _overlap(asked, count, reject),
        "left": _left(asked),
        "difference": _difference(asked),
    }


def _amount(rows: Any) -> dict[str, Any]:
    total = np.asarray(rows, np.float64).reshape(-1, 2).sum(axis=0)
    return {"clips": int(total[0]), "hours": round(float(total[1]) / 3600, 9)}


def _funnel(asked: Asked, count: np.ndarray, reject: np.ndarray, err: np.ndarray) -> list[dict[str, Any]]:
    """Clips that are left after each rule in turn, then after errors."""
    alive = np.ones(len(count), bool)
    steps = [{"rule": "all clips", **_amount(count), "lost": _amount(count[:0])}]
    for i, rule in enumerate(asked.rules):
        falls = alive & (reject >> i & 1 == 1)
        alive &= ~falls
        steps.append({"rule": rule.name, **_amount(count[alive]), "lost": _amount(count[falls])})
    falls = alive & (err != 0)
    steps.append({"rule": "no score", **_amount(count[alive & ~falls]), "lost": _amount(count[falls])})
    return steps


def _rule(asked: Asked, index: int, count: np.ndarray, reject: np.ndarray, err: np.ndarray) -> dict[str, Any]:
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
        "moved": stood is None or not _same(stood, rule),
        "skipped": asked.skipped.get(rule.name, ""),
        "rejects": _amount(count[mine]),
        "errors": _amount(count[err & bit != 0]),
        "only_it": _amount(count[reject == bit]),
        "back_without_it": _amount(count[back]),
        "share_of_rejected": round(float((count[mine, 0] / sharing[mine]).sum()), 3),
    }


def _overlap(asked: Asked, count: np.ndarray, reject: np.ndarray) -> dict[str, Any]:
    """Clips that two rules both reject; on the diagonal, what each does."""
    bits = np.array([reject >> i & 1 for i in range(len(asked.rules))], np.float64)
    both = np.einsum("ig,jg,g->ij", bits, bits, count[:, 0]) if len(bits) else np.zeros((0, 0))
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
    came_by = {n: total([g for g in came if n in g.was_by]) for n in sorted({n for g in came for n in g.was_by})}
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
