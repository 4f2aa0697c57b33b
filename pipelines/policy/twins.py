"""Which of several clips that show the same stays: the best one that every other rule keeps.

Table `duplicates` holds measured facts: pairs, and which of the two is better (larger, then longer).  Whether the
better one stays is the policy's word, so `duplicates.cosine` is settled here, after all other rules and before those
that read it: a clip's score is its similarity to the most similar better twin *that is kept*, and 0 if none is.  A clip
whose better twin is too dark is therefore kept in its place, and one that was rejected takes no other with it.

Cost: one pass over the pairs per link of the longest chain of twins; what-if settles as the stage does.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.policy.rules import Rule
from schemas.scores import DUPLICATES
from schemas.store import Store
from schemas.verdicts import Verdict, VerdictRow

COLUMN = f"{DUPLICATES.name}.cosine"
_DIGITS = 15
Bounds = Sequence[tuple[float | None, float | None]]
"""(min, max) of each rule that reads `COLUMN` and decides."""


def reads_twins(rule: Rule) -> bool:
    """Whether the rule asks how much a clip is like one that is kept."""
    return rule.column == COLUMN and not rule.not_applied


def rejects(score: np.ndarray, bounds: Bounds) -> np.ndarray:
    """(rule, clip) whether each rule rejects that score."""
    found = np.zeros((len(bounds), len(score)), bool)
    for row, (low, high) in zip(found, bounds):
        if low is not None:
            row |= score < low
        if high is not None:
            row |= score > high
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of clips that show the same, as numbers of clips."""

    worse: np.ndarray
    better: np.ndarray
    cosine: np.ndarray

    def settle(self, passes: np.ndarray, bounds: Bounds) -> tuple[np.ndarray, np.ndarray]:
        """Scores and who stays.

        Args:
            passes: Per clip, whether all rules keep it that do not read `COLUMN`.

        Returns:
            Cosine to the most similar better twin that stays, 0 if none does; whether each clip stays.
        """
        score = np.zeros(len(passes))
        waits = np.bincount(self.worse, minlength=len(passes))  # better twins whose fate is open
        stays, settled = np.zeros(len(passes), bool), np.zeros(len(passes), bool)
        while not settled.all():
            now = ~settled & ((waits == 0) | ~passes)
            if not now.any():
                raise ValueError("of some twins each is better than the other: table `duplicates` is wrong")
            # one that fails another rule goes whatever its twins do; its own score is complete when theirs are known
            stays[now] = passes[now] & ~rejects(score[now], bounds).any(axis=0)
            settled |= now
            told = now[self.better]
            kept = told & stays[self.better]
            np.maximum.at(score, self.worse[kept], self.cosine[kept])
            np.subtract.at(waits, self.worse[told], 1)
        return score, stays


def pairs_of(duplicates: pa.Table | None, places: Mapping[str, int]) -> Pairs:
    """The pairs whose clips are both in `places` (clip to number)."""
    rows = [] if duplicates is None else duplicates.select(["clip_id", "kept_clip_id", "cosine"]).to_pylist()
    known = [
        (places[r["clip_id"]], places[r["kept_clip_id"]], r["cosine"])
        for r in rows
        if r["clip_id"] in places and r["kept_clip_id"] in places
    ]
    worse, better, cosine = zip(*known) if known else ((), (), ())
    return Pairs(np.array(worse, np.int64), np.array(better, np.int64), np.array(cosine, np.float64))


def keys_of(clip_ids: Sequence[str] | pa.ChunkedArray) -> np.ndarray:
    """Clips' ids as numbers that a column holds well: their first 15 hex digits."""
    texts = (
        pa.chunked_array([pa.array(clip_ids, pa.string())]) if not isinstance(clip_ids, pa.ChunkedArray) else clip_ids
    )
    found = [np.zeros(0, np.int64)]
    for chunk in pc.utf8_lpad(pc.utf8_slice_codeunits(texts, 0, _DIGITS), 16, "0").chunks:
        if len(chunk):
            start, end = (16 * n for n in (chunk.offset, chunk.offset + len(chunk)))
            text = chunk.buffers()[2].to_pybytes()[start:end].decode()
            found.append(np.frombuffer(bytes.fromhex(text), ">i8").astype(np.int64))
    return np.concatenate(found)


def in_pairs(duplicates: pa.Table | None) -> set[str]:
    """Clips that show the same as another."""
    return set() if duplicates is None else {c for n in ("clip_id", "kept_clip_id") for c in duplicates[n].to_pylist()}


def batches_of_twins(store: Store, names: Sequence[str]) -> set[str]:
    """Other batches that hold a better twin of these batches' clips, or of that one's, and so on."""
    if store.committed(DUPLICATES) is None:
        return set()
    rows = store.read(DUPLICATES, columns=["batch", "kept_batch"]).group_by(["batch", "kept_batch"]).aggregate([])
    found, todo, links = set[str](), set(names), rows.to_pylist()
    while todo:
        found |= todo
        todo = {r["kept_batch"] for r in links if r["batch"] in todo} - found
    return found - set(names)


def explained(
    row: VerdictRow, twins: Sequence[tuple[str, str]], stays: Callable[[str], bool], why_not: Callable[[str], str]
) -> VerdictRow:
    """The verdict row of a rule over `COLUMN`, with the twin that was kept or why it was not.

    Args:
        twins: (better twin, why it is better), most similar first.
        stays: Whether a clip is kept.
        why_not: Names of the rules that speak against a clip.
    """
    kept = next((t for t in twins if stays(t[0])), None)
    if row.verdict == Verdict.REJECT and kept:
        return dataclasses.replace(row, reason=f"{row.reason}; {kept[0]} stays ({kept[1]})")
    if row.verdict == Verdict.KEEP and twins and not kept:
        return dataclasses.replace(
            row, reason=f"stays in place of {twins[0][0]}, which is not kept ({why_not(twins[0][0])})"
        )
    return row
