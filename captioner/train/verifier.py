"""Our captioner, asked how likely it finds captions: the evidence for `captioner.verify`.

The clip is seen once, and once more for each corruption; all that could be said in a claim's place is scored in one
batch.  Cost: about 0.1 CPU s a clip of one subject.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from captioner.corrupt import CORRUPTIONS, Frames, refuting
from captioner.train.checkpoint import Loaded
from captioner.train.likelihood import ids_of, prefixes, token_scores
from captioner.train.tokenizer import DENSE_ID
from captioner.verify import Evidence
from schemas.captions import Fields
from schemas.claims import COUNT, alternatives, changed, vocabulary
from schemas.language import COUNT_WORDS, Claim, claims_of, render_dense

WORDINGS = (0, 1)


class Verifier:
    """Our captioner, asked about captions."""

    def __init__(self, loaded: Loaded) -> None:
        self._net, self._tokenizer = loaded.net, loaded.tokenizer
        self.name = f"counterfactual:{loaded.digest}"
        self.frames = loaded.frames
        self.vocabulary = vocabulary(loaded.net.slots)

    def examine(self, frames: Frames, fields: Fields, *, only: Iterable[Claim] | None = None) -> list[Evidence]:
        """Evidence for every claim of a caption; for some, by other captions alone.

        Args:
            frames: uint8 (T, H, W, 3), as the captioner sees them.
        """
        prefix = prefixes(self._net, torch.from_numpy(frames[None]))
        falls = self.falls(frames, fields) if only is None else {}
        return [self._examine(prefix, fields, c, falls) for c in (claims_of(fields) if only is None else only)]

    def falls(self, frames: Frames, fields: Fields) -> dict[str, float]:
        """Nats that a caption loses on each corruption of its clip."""
        seen = [frames, *(corrupt(frames) for corrupt in CORRUPTIONS.values())]
        prefix = prefixes(self._net, torch.from_numpy(np.stack(seen)))
        own, *others = self._scores(prefix, [render_dense(fields)] * len(seen))
        return {name: own - other for name, other in zip(CORRUPTIONS, others)}

    def _examine(self, prefix: torch.Tensor, fields: Fields, claim: Claim, falls: Mapping[str, float]) -> Evidence:
        against = [falls[name] for name in refuting(claim) if name in falls]
        if claim.field == COUNT:
            values = [v for v in self.vocabulary.get(COUNT, ()) if v.isdecimal()]
            values = sorted({*values, claim.value}, key=lambda v: (v != claim.value, int(v)))
            scores = np.array(self._scores(prefix, [_beginning(int(v)) for v in values], whole=False))
        else:
            values = [claim.value, *alternatives(claim, self.vocabulary)]
            texts = [render_dense(changed(fields, claim, v), w) for w in WORDINGS for v in values]
            scores = np.array(self._scores(prefix, texts)).reshape(len(WORDINGS), len(values)).mean(axis=0)
        gap, rival = None, ""
        wrong: tuple[float, ...] = ()
        if len(values) > 1:
            best = 1 + int(scores[1:].argmax())
            lead = [float(s - np.delete(scores, i).max()) for i, s in enumerate(scores)]
            gap, rival, wrong = lead[0], values[best], tuple(lead[1:])
        fall = min(against) if against else None
        return Evidence(claim, len(fields.subjects) > 1, gap, rival, fall, wrong)

    def _scores(self, prefix: torch.Tensor, texts: Sequence[str], *, whole: bool = True) -> list[float]:
        """Log-probabilities of texts: of one clip, or each of its own."""
        ids = [ids_of(self._tokenizer, t, whole=whole) for t in texts]
        return [float(s.sum()) for s in token_scores(self._net, prefix.expand(len(ids), -1, -1), DENSE_ID, ids)]


def _beginning(count: int) -> str:
    """How a dense caption of so many subjects begins, in wording 1."""
    return "There is" if count == 1 else f"There are {COUNT_WORDS[count]} subjects."
