"""Trains the captioner: a pure function of (pairs, config), whatever happens in between.

Every draw is keyed by (seed, step) and a snapshot holds weights, optimiser and step, so a run that is killed
and started again ends in the same weights, byte for byte (for one number of threads on one kind of machine).
Cost and result of the recipe `demo` stand in recipes.py.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from captioner import evaluate
from captioner.train.config import TrainConfig
from captioner.train.data import Example, by_shape, example, slot_values
from captioner.train.fit import Run, Snapshots, field_accuracy, fit, rate_at
from captioner.train.model import Captioner, describe, rebuild
from captioner.train.settled import settled
from captioner.train.tokenizer import KIND_ID, decode, spell, train_tokenizer
from pipelines.execute import RunLog
from schemas.captions import Fields, Pair
from schemas.errors import ModelError
from schemas.language import Unparsable, parse

__all__ = ["Snapshots", "Trained", "claims_of", "field_accuracy", "rate_at", "train"]

_DENSE_TOKENS = 128


@dataclasses.dataclass(frozen=True, slots=True)
class Trained:
    """A finished run."""

    net: Captioner
    tokenizer: Any
    losses: list[float]
    """Total loss of every step."""
    held_out: evaluate.Tally
    left_out: int
    """Pairs whose caption is too long or whose frames do not decode."""
    short_net: Captioner | None = None
    """The one that was fine-tuned on short captions; `net` is then the one of dense captions."""
    best_step: int | None = None
    """The step whose weights were kept, where training stopped early or might have."""


def train(
    pairs: Sequence[Pair],
    config: TrainConfig,
    snapshots: Snapshots,
    on_step: Callable[[int, str], None] = lambda done, note: None,
    curve: Callable[[int], RunLog] | None = None,
) -> Trained:
    """Train on the pairs of split `train`, measure on those of `held_out`.

    Args:
        on_step: Told after every step how many are done, and how it went at the last look.
        curve: Opens the run's log, given how many steps a snapshot knew.

    Raises:
        ModelError: If there is nothing to learn from.
    """
    with settled(config.threads, config.seed):
        tokenizer, net, learn, held, left_out = _prepare(pairs, config)
        run = fit(net, learn, held, config, snapshots, on_step, curve, tokenizer)
        net.eval()
        counted = claims_of(net, tokenizer, held)
        return Trained(net, tokenizer, run.losses, counted, left_out, _short_net(net, run), run.kept)


def _short_net(net: Captioner, run: "Run") -> Captioner | None:
    if "short" not in run.finished:
        return None
    tuned = rebuild(describe(net))
    tuned.load_state_dict(run.finished["short"])
    return tuned.eval()


def _prepare(pairs: Sequence[Pair], config: TrainConfig) -> tuple[Any, Captioner, list[Example], list[Example], int]:
    learn_from = [p for p in pairs if p.split == "train"]
    if not learn_from:
        raise ModelError("table `pairs` has no row of split `train`: nothing to learn from")
    tokenizer = train_tokenizer([t for p in learn_from for t in (p.short, p.dense)], config.model.vocabulary)
    slots = slot_values([p.fields for p in learn_from])
    spelled = spell(tokenizer, sorted({value for values in slots.values() for value in values}))
    ready: dict[str, list[Example]] = {"train": [], "held_out": []}
    left_out = 0
    for pair in pairs:
        try:
            made = example(pair, config.frames, tokenizer, slots)
        except ValueError:
            left_out += 1
            continue
        if max(len(ids) for ids in made.text.values()) > config.model.max_text_tokens:
            left_out += 1
            continue
        ready[pair.split].append(made)
    if not ready["train"]:
        raise ModelError(f"none of {len(learn_from)} training pairs can be used; the first: {learn_from[0].pair_id}")
    net = Captioner(config.model, slots, len(tokenizer), spelled)
    return tokenizer, net, ready["train"], ready["held_out"], left_out


def claims_of(net: Captioner, tokenizer: Any, examples: Sequence[Example], batch: int = 32) -> evaluate.Tally:
    """Caption examples densely, and count their claims against the truth, where it is known."""
    known = [(e, e.record) for e in examples if e.record is not None]
    texts = captions_of(net, tokenizer, [e for e, _ in known], "dense", _DENSE_TOKENS, batch)
    return evaluate.tally((_read(text), record) for text, (_, record) in zip(texts, known))


def captions_of(
    net: Captioner, tokenizer: Any, examples: Sequence[Example], kind: str, max_tokens: int, batch: int = 32
) -> list[str]:
    """One caption of a kind for each example, greedy, in their order."""
    written: dict[int, str] = {}
    for group in by_shape(examples):
        for start in range(0, len(group), batch):
            part = group[start : start + batch]
            frames = torch.from_numpy(np.stack([examples[i].frames for i in part]))
            rows = net.write(frames, KIND_ID[kind], max_tokens=max_tokens)
            written.update((i, decode(tokenizer, ids)[0]) for i, ids in zip(part, rows))
    return [written[i] for i in range(len(examples))]


def _read(text: str) -> Fields | None:
    try:
        return parse(text)
    except Unparsable:
        return None
