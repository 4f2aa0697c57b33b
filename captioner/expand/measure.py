"""How near expansions are to the captions that the video model was trained on.

Length, openings, how often each value is said, how many texts differ, and a classifier two-sample test: a logistic
regression on words and word pairs that is to tell expansions from captions, judged by its AUC on folds it was not
fitted on (0.5: cannot be told apart; Lopez-Paz and Oquab, arXiv:1610.06545).  Pure; cost: a second for some hundreds.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from captioner.expand.facts import words_of
from schemas.captions import Fields
from schemas.language import claims

_COLUMNS = 512
_FOLDS, _STEPS, _RIDGE = 5, 8, 1e-2


def total_variation(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Half the summed difference of two distributions over the same things, [0, 1]."""
    first, second = sum(one.values()) or 1, sum(other.values()) or 1
    return sum(abs(one.get(k, 0) / first - other.get(k, 0) / second) for k in {*one, *other}) / 2


def openings(texts: Sequence[str], words: int = 2) -> Counter[str]:
    """How texts begin."""
    return Counter(" ".join(words_of(t)[:words]) for t in texts)


def values_said(records: Sequence[Fields | None]) -> dict[str, Counter[str]]:
    """How often each value is said, by field."""
    counted: dict[str, Counter[str]] = {}
    for record in records:
        for field, value in claims(record) if record is not None else ():
            counted.setdefault(field, Counter())[value] += 1
    return counted


def ks_distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Largest difference of two empirical distribution functions, [0, 1]."""
    at = np.sort(np.concatenate([one, other]))
    first, second = (np.searchsorted(np.sort(x), at, side="right") / len(x) for x in (one, other))
    return float(np.abs(first - second).max())


def two_sample_auc(one: Sequence[str], other: Sequence[str], seed: int = 0) -> float:
    """AUC of a classifier that is to tell two sets of texts apart, on texts it has not seen; about 0.5 if it cannot."""
    x = _features([*one, *other])
    y = np.array([0] * len(one) + [1] * len(other))
    order = np.random.Generator(np.random.Philox(key=[seed, len(y)])).permutation(len(y))
    scores = np.zeros(len(y))
    for fold in range(_FOLDS):
        test = order[fold::_FOLDS]
        learn = np.setdiff1d(order, test)
        scores[test] = x[test] @ _fitted(x[learn], y[learn])
    return auc(scores[y == 1], scores[y == 0])


def auc(positive: np.ndarray[Any, Any], negative: np.ndarray[Any, Any]) -> float:
    """Share of (positive, negative) pairs in the right order; ties count half."""
    both = np.concatenate([positive, negative])
    ranks = np.empty(len(both))
    order = np.argsort(both, kind="stable")
    ranks[order] = np.arange(1, len(both) + 1)
    values, inverse = np.unique(both, return_inverse=True)
    means = np.bincount(inverse, ranks) / np.bincount(inverse)
    summed = means[inverse][: len(positive)].sum()
    assert len(values) == len(means)
    return float((summed - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative)))


def _features(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Counts of words and word pairs, hashed, and the length; a column of ones at the end."""
    x = np.zeros((len(texts), _COLUMNS + 2))
    for row, text in enumerate(texts):
        words = ["^", *words_of(text), "$"]
        for gram in (*words, *(" ".join(p) for p in itertools.pairwise(words))):
            x[row, int(hashlib.md5(gram.encode(), usedforsecurity=False).hexdigest()[:6], 16) % _COLUMNS] += 1
        x[row, _COLUMNS] = len(words) / 10
    x[:, -1] = 1
    return x


def _fitted(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Weights of a ridge logistic regression, by Newton's method."""
    mean, spread = x.mean(axis=0), x.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    scaled = (x - np.where(spread > 0, mean, 0.0)) / scale
    w = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(scaled @ w, -30, 30)))
        gradient = scaled.T @ (p - y) / len(y) + _RIDGE * w
        hessian = (scaled * (p * (1 - p))[:, None]).T @ scaled / len(y) + _RIDGE * np.eye(len(w))
        w -= np.linalg.solve(hessian, gradient)
    return w / scale


def similarity(
    expanded: Sequence[str], said: Sequence[Fields | None], captions: Sequence[str], known: Sequence[Fields | None]
) -> dict[str, Any]:
    """Everything above, for expansions and the captions they are to be like."""
    lengths = [[float(len(words_of(t))) for t in texts] for texts in (expanded, captions)]
    frequencies = values_said(said), values_said(known)
    return {
        "words_mean": round(float(np.mean(lengths[0])), 2),
        "words_mean_captions": round(float(np.mean(lengths[1])), 2),
        "length_ks": round(ks_distance(*lengths), 4),
        "openings_tv": round(total_variation(openings(expanded), openings(captions)), 4),
        "values_tv": {
            f: round(total_variation(frequencies[0].get(f, {}), c), 4) for f, c in sorted(frequencies[1].items())
        },
        "two_sample_auc": round(two_sample_auc(expanded, captions), 4),
        "distinct": round(len(set(expanded)) / len(expanded), 4),
    }
