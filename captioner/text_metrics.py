"""The text metrics that the field reports: CIDEr of short captions, CLIPScore of a caption's sentences.

They compare with published numbers; what they cannot tell is why a score is low, which claims do (`evaluate.py`).

CIDEr (with clipping and the length penalty that make it CIDEr-D) is computed by the reference implementation,
pycocoevalcap, an extra of this package (`pip install 'dailies[metrics]'`).  Its tokenizer is a Java program for whole
English; ours lowers and drops punctuation, which is what that one does to plain sentences.  Every wording that our
language has for a truth is a reference, and CIDEr averages over references, so that even the truth's own sentence
scores well under 10: it is reported beside as `truth`, the ceiling.

CLIPScore is 2.5 max(cosine, 0) of one sentence and the clip (CLIP reads 77 tokens), averaged over a caption's
sentences.  Both with percentile bootstrap intervals over captions, 95 %, seeded.
Sources: CIDEr arXiv:1411.5726; CLIPScore arXiv:2104.08718.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from schemas.captions import Pair
from schemas.language import NUM_VARIANTS, render_short

CLIP_SCALE = 2.5
_RESAMPLES = 2000
_WORDS = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*")


class NoCider(Exception):
    """The extra with CIDEr is not installed."""


def references(pair: Pair) -> list[str]:
    """Every short caption that is right for a pair; its own text where no record is known."""
    if pair.fields is None:
        return [pair.short]
    return list(dict.fromkeys(render_short(pair.fields, v) for v in range(NUM_VARIANTS)))


def words(text: str) -> str:
    """A text in lower case without punctuation, its words apart by one space."""
    return " ".join(_WORDS.findall(text.lower()))


def cider(written: Sequence[str], right: Sequence[Sequence[str]]) -> np.ndarray:
    """CIDEr-D of each text against its references, [0, 10]; how rare a phrase is follows from all references.

    Raises:
        NoCider: If pycocoevalcap is not installed.
        ValueError: If there are fewer than two texts: then no phrase is rarer than another.
    """
    try:
        from pycocoevalcap.cider.cider import Cider
    except ImportError as e:
        raise NoCider("CIDEr needs pycocoevalcap: pip install 'dailies[metrics]'") from e
    if len(written) < 2 or len(written) != len(right):
        raise ValueError(f"CIDEr takes two texts or more, each with references, got {len(written)} and {len(right)}")
    truths = {i: [words(r) for r in of] for i, of in enumerate(right)}
    _, scores = Cider().compute_score(truths, {i: [words(w)] for i, w in enumerate(written)})
    return np.asarray(scores, np.float64)


def clip_score(cosines: Sequence[float]) -> float:
    """Mean CLIPScore of a caption's sentences, [0, 2.5]."""
    return float(np.mean(CLIP_SCALE * np.clip(cosines, 0, 1)))


def mean_of(scores: Sequence[float] | np.ndarray, seed: int = 0) -> dict[str, float]:
    """Mean with its interval.

    Raises:
        ValueError: If there is nothing to average.
    """
    values = np.asarray(scores, np.float64)
    if not len(values):
        raise ValueError("a mean of no scores")
    rng = np.random.Generator(np.random.Philox(key=[seed, len(values)]))
    means = values[rng.integers(len(values), size=(_RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": round(float(values.mean()), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def of_short(written: Sequence[str], pairs: Sequence[Pair]) -> dict[str, Any]:
    """CIDEr of short captions, with that of the truth's own beside it."""
    right = [references(p) for p in pairs]
    own = mean_of(cider([p.short for p in pairs], right))
    return {**mean_of(cider(written, right)), "n": len(written), "truth": own["mean"]}
