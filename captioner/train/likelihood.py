"""How likely our captioner finds a text, token by token, of a clip: what the counterfactual tests compare.

The clip is seen once and its prefix repeated for all texts; texts are padded on the right, where a causal model never
looks back.  Cost: about 0.4 ms a text of 60 tokens on one core (default size).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from captioner.train.data import pad
from captioner.train.model import Captioner
from captioner.train.tokenizer import END_ID, encode

_AT_ONCE = 256


@torch.no_grad()
def prefixes(net: Captioner, frames: Tensor) -> Tensor:
    """What the LM reads of each clip, (B, S, D); frames are uint8 (B, T, H, W, 3)."""
    return net.see(frames)[1]


@torch.no_grad()
def token_scores(
    net: Captioner, prefix_BSD: Tensor, kind_id: int, ids: Sequence[Sequence[int]], at_once: int = _AT_ONCE
) -> list[Tensor]:
    """Log-probability of each token of each text, given its clip and what stands before; natural logarithm.

    Args:
        prefix_BSD: One clip for each text.
        ids: Tokens of each text, without the kind token; end with `END_ID` to count the end too.
    """
    found: list[Tensor] = []
    for start in range(0, len(ids), at_once):
        part = ids[start : start + at_once]
        text = pad([[kind_id, *t] for t in part])
        words = net.lm.get_input_embeddings()(text[:, :-1])
        seen = prefix_BSD[start : start + at_once]
        hidden = net.lm.model(inputs_embeds=torch.cat([seen, words], dim=1), use_cache=False).last_hidden_state
        logs = F.log_softmax(net.lm.lm_head(hidden[:, seen.shape[1] :]).float(), dim=-1)
        each = logs.gather(2, text[:, 1:, None])[..., 0]
        found += [row[: len(t)] for row, t in zip(each, part)]
    return found


def ids_of(tokenizer: Any, text: str, *, whole: bool = True) -> list[int]:
    """Tokens of a text, with the end token if it is a whole caption."""
    return [*encode(tokenizer, text), *([END_ID] if whole else [])]
