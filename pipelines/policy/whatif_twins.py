"""What-if's second step: rules on likeness, asked of the clips that have twins once all other rules are known.

The count (`whatif_count.py`) has judged these clips as if they were like no other.  Here the pairs of table
`duplicates` are settled as the stage `verdicts` settles them (`twins.py`), and clips that a rule on likeness rejects
are moved to where they belong.  Cost: about 1 s per million clips with twins.
"""

from collections.abc import Sequence

import numpy as np

from pipelines.policy.rules import Rule
from pipelines.policy.twins import Pairs, keys_of, reads_twins, rejects
from pipelines.policy.whatif_count import Counts, Twins
from schemas.scores import DUPLICATES
from schemas.store import Store


def read_pairs(store: Store) -> tuple[np.ndarray, Pairs]:
    """Keys of all clips in pairs, sorted, and the pairs as places among them."""
    if store.committed(DUPLICATES) is None:
        return np.zeros(0, np.int64), Pairs(*(np.zeros(0, np.int64),) * 2, np.zeros(0))
    rows = store.read(DUPLICATES, columns=["clip_id", "kept_clip_id", "cosine"])
    worse, better = (keys_of(rows[name]) for name in ("clip_id", "kept_clip_id"))
    keys = np.unique(np.concatenate([worse, better]))
    return keys, Pairs(np.searchsorted(keys, worse), np.searchsorted(keys, better), rows["cosine"].to_numpy())


def settle(counts: Counts, elsewhere: Sequence[Twins], rules: Sequence[Rule], keys: np.ndarray, pairs: Pairs) -> None:
    """Move the clips that are like one that is kept.

    Args:
        elsewhere: Clips with twins in batches that are not asked about: they count as twins, not as clips.
    """
    asked = [(i, r) for i, r in enumerate(rules) if reads_twins(r)]
    bounds = [(r.min, r.max) for _, r in asked]
    passes, known = np.ones(len(keys), bool), np.zeros(len(keys), bool)
    placed = []
    for twins in (*counts.twins, *elsewhere):
        place = np.searchsorted(keys, twins.keys).clip(0, max(len(keys) - 1, 0))
        there = keys[place] == twins.keys if len(keys) else np.zeros(len(place), bool)
        fine = np.array([f.passes for f in twins.fares], bool)[twins.fare_of]
        new = there & ~known[place]
        passes[place[new]] = fine[new]
        known[place[new]] = True
        placed.append((twins, place, there))
    score, _ = pairs.settle(passes, bounds)
    outside = rejects(score, bounds)
    bits = sum((out.astype(np.int64) << i for (i, _), out in zip(asked, outside)), np.zeros(len(keys), np.int64))
    for twins, place, there in placed[: len(counts.twins)]:
        mine = np.array([f.likeness for f in twins.fares], np.int64)[twins.fare_of]
        told = np.where(there, bits[place] if len(bits) else 0, twins.always) & mine
        moved = told != twins.always
        cases, case_of = np.unique(np.stack([twins.fare_of[moved], told[moved]]), axis=1, return_inverse=True)
        clips = np.bincount(case_of, minlength=cases.shape[1]).tolist()
        seconds = np.bincount(case_of, weights=twins.seconds[moved], minlength=cases.shape[1]).tolist()
        for which, now, n, total in zip(*cases.tolist(), clips, seconds):
            fare = twins.fares[which]
            _shift(counts, fare.key(twins.always), fare.key(now), n, total)
            if fare.was != "keep" and fare.passes and not twins.always:  # they had been counted as coming back
                _take(counts.came_from, fare.blamed, n, total)
            if fare.was != "keep" and fare.passes and not now:
                _take(counts.came_from, fare.blamed, -n, -total)
    counts.twins.clear()


def _shift(
    counts: Counts, old: tuple[str, int, int, str, int], new: tuple[str, int, int, str, int], n: int, s: float
) -> None:
    _take(counts.groups, old, n, s)
    _take(counts.groups, new, -n, -s)


def _take(sums: dict, key: object, clips: int, seconds: float) -> None:  # type: ignore[type-arg]
    """Take clips away; what has none left is gone, whatever the rounding of its seconds."""
    before = sums.pop(key, (0, 0.0))
    if before[0] != clips:
        sums[key] = (before[0] - clips, before[1] - seconds)
