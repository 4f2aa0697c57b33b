"""`dailies captioner verify-claims`: how much the counterfactual test finds, and how often it cries wolf.

Into the true caption of every held-out pair wrong claims are planted, one at a time: a colour, a direction, a camera
move, a count.  *Found* is the share of planted claims that are contradicted; *false alarms* the share of the true
claims of the true captions that are.  Thresholds never see the pair they judge: they come from the other half of
the held-out pairs, and the halves change places.  The captioner's own captions of the same pairs say what the test
finds of real mistakes, those of the model that it asks.  Intervals are Wilson's, 95 %.
Cost: about 0.2 CPU s a pair.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from captioner.evaluate import Share
from captioner.frames import moments, pixels, span_of
from captioner.train.checkpoint import Loaded
from captioner.train.tokenizer import DENSE_ID, decode
from captioner.train.verifier import Verifier
from captioner.verify import CONTRADICTED, UNVERIFIABLE, Evidence, VerifyConfig, plant, thresholds, verdict
from schemas.captions import Fields, Pair
from schemas.claims import CAMERA, COUNT
from schemas.ids import digest
from schemas.language import Claim, claims_of, parse

_DENSE_TOKENS = 160
PLANTED = ("color", "motion", CAMERA, COUNT)


def seen(pair: Pair, verifier: Verifier) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A pair's frames as the captioner sees them."""
    spec = verifier.frames
    return pixels([pair.frames[i] for i in moments(pair.times_s, *span_of(pair.times_s), spec.num_frames)], spec)


def evidence(pairs: Iterable[Pair], verifier: Verifier) -> list[Evidence]:
    """Evidence for every claim of the true captions, and that a lone subject is one: what thresholds come from."""
    found = []
    for pair in pairs:
        if pair.fields is not None:
            frames = seen(pair, verifier)
            found += verifier.examine(frames, pair.fields)
            if len(pair.fields.subjects) == 1:
                found += verifier.examine(frames, pair.fields, only=[Claim(COUNT, 0, "1")])
    return found


def measure(loaded: Loaded, pairs: Sequence[Pair], config: VerifyConfig) -> dict[str, Any]:
    """The rates over held-out pairs with known truth."""
    verifier = Verifier(loaded)
    known = sorted((p for p in pairs if p.fields is not None), key=lambda p: digest("verify", p.pair_id))
    true = [evidence([p], verifier) for p in known]
    wrong = [_planted(p, verifier) for p in known]
    own = [_own(p, loaded, verifier) for p in known]
    halves = [range(0, len(known), 2), range(1, len(known), 2)]
    told: dict[str, list[tuple[Evidence, str]]] = {"true": [], "planted": [], "own_wrong": [], "own_right": []}
    for judged, learnt in (halves, halves[::-1]):
        bounds = thresholds((e for i in learnt for e in true[i]), config)
        for i in judged:
            told["true"] += [(e, verdict(e, bounds)) for e in true[i] if e.several or e.claim.field != COUNT]
            told["planted"] += [(e, verdict(e, bounds)) for e in wrong[i]]
            told["own_wrong"] += [(e, verdict(e, bounds)) for e in own[i] if not _holds(e.claim, known[i])]
            told["own_right"] += [(e, verdict(e, bounds)) for e in own[i] if _holds(e.claim, known[i])]
    return {
        "captioner": loaded.digest,
        "pairs": len(known),
        "planted": _rates(told["planted"]),
        "false_alarms": _rates(told["true"]),
        "own_errors": _rates(told["own_wrong"]),
        "own_right": _rates(told["own_right"]),
        "config": {"false_alarms": config.false_alarms, "power": config.power},
    }


def _planted(pair: Pair, verifier: Verifier) -> list[Evidence]:
    fields = pair.fields
    assert fields is not None
    rng = np.random.default_rng(int(digest("plant", pair.pair_id), 16))
    frames, found = seen(pair, verifier), []
    for claim in [*claims_of(fields), *([] if len(fields.subjects) > 1 else [Claim(COUNT, 0, "1")])]:
        if claim.field not in PLANTED or (claim.field == "motion" and not claim.value.startswith("moving")):
            continue
        made = plant(fields, claim, rng, verifier.vocabulary)
        if made is not None:
            found += verifier.examine(frames, made[0], only=[made[1]])
    return found


def _own(pair: Pair, loaded: Loaded, verifier: Verifier) -> list[Evidence]:
    """Evidence for what the captioner itself says; nothing where it does not parse."""
    frames = seen(pair, verifier)
    (ids,) = loaded.net.write(torch.from_numpy(frames[None]), DENSE_ID, max_tokens=_DENSE_TOKENS)
    try:
        return verifier.examine(frames, parse(decode(loaded.tokenizer, ids)[0]))
    except ValueError:
        return []


def _holds(claim: Claim, pair: Pair) -> bool:
    """Whether the truth says so somewhere; two subjects may be named in either order."""
    truth: Fields | None = pair.fields
    assert truth is not None
    return (claim.field, claim.value) in {(c.field, c.value) for c in claims_of(truth)}


def _rates(told: Sequence[tuple[Evidence, str]]) -> dict[str, Any]:
    """Shares contradicted: of all, by field, and by whether the caption names several subjects."""
    groups: dict[str, list[str]] = {"all": [], "one subject": [], "several subjects": []}
    for e, word in told:
        for name in ("all", "several subjects" if e.several else "one subject", e.claim.field):
            groups.setdefault(name, []).append(word)
    return {name: _rate(words) for name, words in groups.items() if words}


def _rate(words: Sequence[str]) -> dict[str, Any]:
    counted = Counter(words)
    share = Share(counted[CONTRADICTED], len(words))
    low, high = share.interval
    found = {"rate": share.value, "low": low, "high": high}
    rounded: dict[str, Any] = {k: round(v, 4) for k, v in found.items()}
    return {**rounded, "n": share.n, "unverifiable": counted[UNVERIFIABLE]}
