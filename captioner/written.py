"""What the trained captioner writes for its held-out pairs, and how that scores in the field's own metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

from captioner import text_metrics
from captioner.text_metrics import NoCider
from schemas.captions import CAPTION_SCORES, Pair
from schemas.store import Store

_TOKENS = 48
"""Tokens of a short caption at most; ours have about ten words."""


def texts(store: Store) -> dict[str, Any]:
    """`cider` of short captions of held-out pairs, `clip_score` of the dense captions that CLIP has read.

    What cannot be had is left out, with the reason under `left_out`.

    Raises:
        MissingTable, ConfigError: As `captioner.train.examine.trained`.
    """
    from captioner.train.examine import trained

    row, loaded, pairs = trained(store)
    found: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    try:
        found["cider"] = text_metrics.of_short(_short_captions(loaded, pairs), pairs)
    except (NoCider, ValueError) as e:
        left_out["cider"] = str(e)
    scored = store.read(CAPTION_SCORES).to_pylist() if store.batches(CAPTION_SCORES) else []
    sentences = [c for r in scored if (c := [s["score"] for s in r["sentences"]])]
    if sentences:
        each = [text_metrics.clip_score(c) for c in sentences]
        found["clip_score"] = {**text_metrics.mean_of(each), "n": len(each), "model": scored[0]["model"]}
    else:
        left_out["clip_score"] = "CLIP has read no caption of this root: run `dailies caption`"
    return {**found, "left_out": left_out, "captioner": row.digest}


def _short_captions(loaded: Any, pairs: Sequence[Pair]) -> list[str]:
    """One short caption for each pair, greedy, in their order."""
    import torch

    from captioner.train.data import example, slot_values
    from captioner.train.train import captions_of

    torch.set_num_threads(1)  # as the examination of claims does: a caption does not depend on the machine's cores
    slots = slot_values([p.fields for p in pairs])
    examples = [example(p, loaded.frames, loaded.tokenizer, slots) for p in pairs]
    return captions_of(loaded.writer("short"), loaded.tokenizer, examples, "short", _TOKENS)


def as_lines(found: Mapping[str, Any]) -> list[str]:
    """The metrics as people read them."""
    lines = []
    for name, title, beside in (("cider", "CIDEr", "truth {truth:.3f}"), ("clip_score", "CLIPScore", "")):
        if name in found:
            f = found[name]
            text = f"{title:<12} {f['mean']:.3f} [{f['low']:.3f}, {f['high']:.3f}]  n {f['n']}  {beside.format(**f)}"
            lines.append(text.rstrip())
        else:
            lines.append(f"{title:<12} left out: {found['left_out'][name]}")
    return lines
