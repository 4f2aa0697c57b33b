"""The one pass behind what-if: the scoreboard counted by which rules reject, which have no score, and what stood.

A rule that stands as it stood is read from `rejected_by` and `errors_of`; a rule that was moved is judged on its
column.  Each clip becomes one small code (what stood, the shape if it is kept before or after, the moved rules that
reject it), and the codes of a chunk are counted in an array.  Which rules a clip comes back from is counted apart.
Rules on likeness to a clip that is kept are asked last, of the few clips that have a twin (`whatif_twins.py`): here
they are judged by a score of 0.

Cost per ten million clips: about 0.3 CPU s for the reading of texts and lengths, 0.1 to 0.2 for each moved rule, 0.5
for the counting (`benchmarks/whatif.py`).  Memory: half a million rows per thread.
"""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.policy.rules import Rule
from pipelines.policy.scoreboard import COLUMNS, SCOREBOARD, SEPARATOR, SPARSE_COLUMNS, Standing
from pipelines.policy.twins import reads_twins, rejects
from schemas.errors import UsageError
from schemas.store import Store

BANDS_S = (2.0, 4.0, 8.0, 16.0, 32.0)
"""Lengths at which the hours that are left are counted apart, s."""
_CHUNK_ROWS = 500_000
_BLOCK_ROWS = 1 << 16
_DENSE = 1 << 18
"""Codes up to here are counted in an array, others are numbered first."""
_TABLE_RULES = 16
"""Sets of so many moved rules are looked up in a table of all of them, which stays in the processor's cache."""
_TEXTS = ("rejected_by", "errors_of", "aspect")

Key = tuple[str, int, int, str, int]
"""(verdict that stood, bits that reject, bits without a score, aspect, band of length); the last two are empty and 0
for clips that are kept neither before nor after."""


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How one policy is asked of batches that were judged by another."""

    standing: Mapping[str, int]
    """Rule that stands as it stood, to its bit among the rules asked about."""
    moved: tuple[tuple[int, str, float | None, float | None], ...]
    """(bit, column, min, max) of rules whose score must be read."""
    likeness: tuple[tuple[int, float | None, float | None], ...] = ()
    """(bit, min, max) of rules on likeness to a clip that is kept."""
    has_pairs: bool = False
    """Some clips have twins."""

    @property
    def columns(self) -> list[str]:
        twin = ["twin"] if self.likeness and self.has_pairs else []
        return [*_TEXTS, "seconds", *twin, *sorted({c for _, c, _, _ in self.moved})]

    @property
    def always(self) -> int:
        """Bits of the rules on likeness that reject a clip like no other."""
        outside = rejects(np.zeros(1), [(low, high) for _, low, high in self.likeness])[:, 0]
        return sum(1 << bit for (bit, _, _), out in zip(self.likeness, outside) if out)


@dataclasses.dataclass(frozen=True, slots=True)
class Fare:
    """How clips with twins fare while likeness is not asked about."""

    was: str
    rejecting: int
    erring: int
    aspect: str
    band: int
    blamed: tuple[str, ...]
    """Rules that spoke against them as things stood."""
    likeness: int
    """Bits of the rules on likeness that decide in their batch."""

    @property
    def passes(self) -> bool:
        return not self.rejecting and not self.erring

    def key(self, bits: int) -> Key:
        """Where they are counted if those rules on likeness reject them."""
        rejecting = self.rejecting | bits
        shown = self.was == "keep" or not (rejecting or self.erring)
        return self.was, rejecting, self.erring, self.aspect if shown else "", self.band if shown else 0


@dataclasses.dataclass(frozen=True, slots=True)
class Twins:
    """The clips of a chunk that have twins."""

    keys: np.ndarray
    fare_of: np.ndarray
    seconds: np.ndarray
    fares: Sequence[Fare]
    always: int


@dataclasses.dataclass(slots=True)
class Counts:
    """Clips and seconds by key; the counts of several chunks add up."""

    groups: dict[Key, tuple[int, float]] = dataclasses.field(default_factory=dict)
    came_from: dict[tuple[str, ...], tuple[int, float]] = dataclasses.field(default_factory=dict)
    """Clips that come back, by the rules that had rejected them (or had no score)."""
    twins: list[Twins] = dataclasses.field(default_factory=list)

    def add(self, other: "Counts") -> None:
        for group, amount in other.groups.items():
            _add(self.groups, group, amount)
        for names, amount in other.came_from.items():
            _add(self.came_from, names, amount)
        self.twins += other.twins


def _add(sums: dict[Any, tuple[int, float]], key: Any, amount: tuple[int, float]) -> None:
    clips, seconds = sums.get(key, (0, 0.0))
    sums[key] = (clips + amount[0], seconds + amount[1])


def plan(stands: Standing, rules: Sequence[Rule], skip: Mapping[str, str], has_pairs: bool = False) -> Plan:
    """Which rules can be read off, and which must be judged again."""
    before = {r.name: r for r in stands.rules if r.name not in stands.skipped}
    unmoved, moved, likeness = {}, [], []
    for i, rule in enumerate(rules):
        if rule.name in skip:
            continue
        if reads_twins(rule):
            likeness.append((i, rule.min, rule.max))
        elif rule.name in before and same(before[rule.name], rule):
            unmoved[rule.name] = i
        else:
            moved.append((i, COLUMNS[rule.column], rule.min, rule.max))
    return Plan(unmoved, tuple(moved), tuple(likeness), has_pairs)


def same(a: Rule, b: Rule) -> bool:
    """Whether two rules decide alike."""
    return (a.column, a.min, a.max, bool(a.not_applied)) == (b.column, b.min, b.max, bool(b.not_applied))


def count(store: Store, batches: Sequence[str], asking: Plan, threads: int | None = None) -> Counts:
    """All clips of batches that were judged by one policy."""
    chunks = [c for b in batches for c in _chunks(store, store.table_path(SCOREBOARD, b))]
    total = Counts()
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for found in pool.map(lambda chunk: _count_chunk(_read(store, chunk, asking.columns), asking), chunks):
            total.add(found)
    return total


def _open(store: Store, path: str, footer: Any = None) -> Any:
    source = path if store.is_local else store.fs.open(path, "rb")
    return pq.ParquetFile(source, metadata=footer, read_dictionary=list(_TEXTS))


_Chunk = tuple[str, Any, int, int]
"""(file, its footer, first row group, after the last)."""


def _chunks(store: Store, path: str) -> list[_Chunk]:
    """A file in pieces of about `_CHUNK_ROWS` rows each."""
    with _open(store, path) as file:
        footer = file.metadata
    groups, rows = footer.num_row_groups, max(footer.num_rows, 1)
    step = max(1, _CHUNK_ROWS * groups // rows)
    return [(path, footer, i, min(i + step, groups)) for i in range(0, groups, step)]


def _read(store: Store, chunk: _Chunk, columns: list[str]) -> pa.Table:
    path, footer, start, end = chunk
    with _open(store, path, footer) as file:
        missing = set(columns) - set(file.schema_arrow.names)
        if missing:
            raise UsageError(
                f"{path} has no column {', '.join(sorted(missing))}: it was made before that score was; "
                "run `dailies stage verdicts`"
            )
        return file.read_row_groups(range(start, end), columns=columns, use_threads=False).unify_dictionaries()


def _count_chunk(rows: pa.Table, asking: Plan) -> Counts:
    if not rows.num_rows:
        return Counts()
    fate, fates = _fates(rows)
    aspect, aspects = _texts(rows["aspect"])
    seconds = rows["seconds"].to_numpy()
    rejects, errs = _judge(rows, asking)
    parts, part_of, was_kept, held = _parts(fates, asking)
    (reject_code, reject_sets), (err_code, err_sets) = _numbered(rejects, asking), _numbered(errs, asking)
    sizes = (len(parts), 1 + len(aspects) * (len(BANDS_S) + 1), len(reject_sets), len(err_sets))
    tally, came_from, always = _Tally(math.prod(sizes)), _Tally(len(fates)), asking.always
    for start in range(0, rows.num_rows, _BLOCK_ROWS):  # a block's arrays stay in the processor's cache
        here = slice(start, start + _BLOCK_ROWS)
        of, long = fate[here], seconds[here]
        kept_before, now_kept = was_kept[of], ~held[of]
        if always:
            now_kept[:] = False
        elif asking.moved:
            now_kept &= (rejects[here] | errs[here]) == 0
        shape = _shape(aspect[here], long) * (now_kept | kept_before)
        tally.add(_code((part_of[of], shape, reject_code[here], err_code[here]), sizes), long)
        came = np.flatnonzero(now_kept & ~kept_before)
        if len(came):
            came_from.add(of[came], long[came])
    found = Counts()
    values, clips, sums = tally.result()
    columns = [c.tolist() for c in np.unravel_index(values, sizes)]
    for which, cell, r, e, n, total in zip(*columns, clips.tolist(), sums.tolist()):
        word, reject, err = parts[which]
        ratio, band = divmod(cell - 1, len(BANDS_S) + 1) if cell else (0, 0)
        key = (word, reject | reject_sets[r] | always, err | err_sets[e], aspects[ratio] if cell else "", band)
        _add(found.groups, key, (n, total))
    for which, n, total in zip(*(c.tolist() for c in came_from.result())):
        reject_names, err_names = fates[which]
        _add(found.came_from, reject_names or err_names, (n, total))
    if "twin" in rows.column_names and (where := np.flatnonzero(rows["twin"].is_valid().to_numpy())).size:
        widths = (len(fates), 1 + len(aspects) * (len(BANDS_S) + 1), len(reject_sets), len(err_sets))
        shape = _shape(aspect[where], seconds[where])
        codes, fare_of = np.unique(
            _code((fate[where], shape, reject_code[where], err_code[where]), widths), return_inverse=True
        )
        fares = []
        for which, cell, r, e in zip(*(c.tolist() for c in np.unravel_index(codes, widths))):
            word, reject, err = parts[part_of[which]]
            ratio, band = divmod(cell - 1, len(BANDS_S) + 1)
            mine = sum(1 << bit for bit, _, _ in asking.likeness)
            blamed = fates[which][0] or fates[which][1]
            fares.append(Fare(word, reject | reject_sets[r], err | err_sets[e], aspects[ratio], band, blamed, mine))
        keys = rows["twin"].combine_chunks().drop_null().to_numpy()
        found.twins.append(Twins(keys, fare_of, seconds[where], fares, always))
    return found


Fate = tuple[tuple[str, ...], tuple[str, ...]]
"""Rules that reject a clip as things stand, and rules that have no score of it."""


def _fates(rows: pa.Table) -> tuple[np.ndarray, list[Fate]]:
    """Each row's fate as a number, and what the numbers mean."""
    reject, rejected = _texts(rows["rejected_by"])
    err, errors = _texts(rows["errors_of"])
    split = [[tuple(n for n in text.split(SEPARATOR) if n) for text in texts] for texts in (rejected, errors)]
    number = reject if len(errors) == 1 else reject * np.int32(len(errors)) + err
    return number, [(r, e) for r in split[0] for e in split[1]]


def _texts(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """A column of few different texts as numbers and the texts."""
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0)
    return whole.indices.to_numpy(), whole.dictionary.to_pylist()


def _parts(
    fates: Sequence[Fate], asking: Plan
) -> tuple[list[tuple[str, int, int]], np.ndarray, np.ndarray, np.ndarray]:
    """What counts of each fate: the word that stood and the rules that still hold.

    Returns:
        Distinct (word, bits that reject, bits without a score); each fate's place among them; whether a fate was
        kept; whether a rule that stands still speaks against it.
    """
    parts: dict[tuple[str, int, int], int] = {}
    part_of, was_kept, held = np.empty(len(fates), np.int32), np.empty(len(fates), bool), np.empty(len(fates), bool)
    for i, (reject, err) in enumerate(fates):
        word = "reject" if reject else "error" if err else "keep"
        still = [sum(1 << asking.standing[n] for n in names if n in asking.standing) for names in (reject, err)]
        part_of[i] = parts.setdefault((word, still[0], still[1]), len(parts))
        was_kept[i], held[i] = word == "keep", any(still)
    return list(parts), part_of, was_kept, held


def _shape(aspect: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Aspect ratio and band of length as one number, from 1."""
    band = np.zeros(len(seconds), np.uint8)
    for bound in BANDS_S:
        band += seconds >= bound
    return np.asarray(aspect * np.int32(len(BANDS_S) + 1) + (band + np.uint8(1)))


def _judge(rows: pa.Table, asking: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Bits of the moved rules, in their own order, that reject each row, and of those that have no score of it."""
    kind = np.int32 if len(asking.moved) < 32 else np.int64
    rejects, errs = np.zeros(rows.num_rows, kind), np.zeros(rows.num_rows, kind)
    scores = [rows[column] for _, column, _, _ in asking.moved]
    values = [score.to_numpy() for score in scores]  # null becomes NaN, which is outside no bound
    gaps = [bool(s.null_count) and column not in SPARSE_COLUMNS for s, (_, column, _, _) in zip(scores, asking.moved)]
    for start in range(0, rows.num_rows, _BLOCK_ROWS):  # in the processor's cache, as below
        here = slice(start, start + _BLOCK_ROWS)
        reject, err = rejects[here], errs[here]
        for k, (_, _, low, high) in enumerate(asking.moved):
            of, bit = values[k][here], kind(1 << k)
            if low is not None:
                reject |= (of < low) * bit
            if high is not None:
                reject |= (of > high) * bit
            if gaps[k]:
                err |= np.isnan(of) * bit
    return rejects, errs


def _numbered(bits: np.ndarray, asking: Plan) -> tuple[np.ndarray, list[int]]:
    """Sets of moved rules as small numbers, and each number's set as bits of the rules asked about."""
    if not bits.any():
        return bits, [0]
    if len(asking.moved) > _TABLE_RULES:
        import pandas as pd

        numbers, values = pd.factorize(bits)
    else:
        values = np.flatnonzero(np.bincount(bits, minlength=1 << len(asking.moved)))
        place = np.zeros(1 << len(asking.moved), np.int32)
        place[values] = np.arange(len(values))
        numbers = place[bits]
    places = [place for place, *_ in asking.moved]
    return numbers, [sum(1 << p for k, p in enumerate(places) if v >> k & 1) for v in values.tolist()]


def _code(numbers: Sequence[np.ndarray], sizes: Sequence[int]) -> np.ndarray:
    """Several small numbers as one, their flat index into `sizes`."""
    code = numbers[0].astype(np.int64)
    for number, width in zip(numbers[1:], sizes[1:]):
        if width > 1:
            code *= width
            code += number
    return code


class _Tally:
    """How often each code was there, and its seconds; in an array if there are few codes, else by what was seen."""

    def __init__(self, size: int) -> None:
        self.dense = size <= _DENSE
        self.clips = np.zeros(size if self.dense else 0, np.int64)
        self.seconds = np.zeros(size if self.dense else 0)
        self.blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, code: np.ndarray, seconds: np.ndarray) -> None:
        if self.dense:
            clips, sums = np.bincount(code), np.bincount(code, weights=seconds)
            self.clips[: len(clips)] += clips
            self.seconds[: len(sums)] += sums
            return
        import pandas as pd

        numbers, values = pd.factorize(code)
        self.blocks.append((values, np.bincount(numbers), np.bincount(numbers, weights=seconds)))

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Codes (each once or, where there were many, once per block), clips, seconds."""
        if self.dense:
            there = np.flatnonzero(self.clips)
            return there, self.clips[there], self.seconds[there]
        values, clips, sums = (np.concatenate(c) for c in zip(*self.blocks))
        return values, clips, sums
