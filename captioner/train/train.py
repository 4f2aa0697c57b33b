"""Trains the captioner: a pure function of (pairs, config), whatever happens in between.

Every draw is keyed by (seed, step) and a snapshot holds weights, optimiser and step, so a run that is killed
and started again ends in the same weights, byte for byte (for one number of threads on one kind of machine).
Cost and result of the recipe `demo` stand in recipes.py.
"""

import dataclasses
import io
import math
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from captioner import evaluate
from captioner.train.config import LoraConfig, TrainConfig
from captioner.train.data import Example, by_shape, draw, example, slot_values
from captioner.train.model import Captioner
from captioner.train.tokenizer import DENSE_ID, decode, train_tokenizer
from schemas.captions import Fields, Pair
from schemas.errors import ModelError
from schemas.language import Unparsable, parse

_DENSE_TOKENS = 128


class Snapshots(Protocol):
    """Where the state of an unfinished run is kept."""

    def load(self) -> bytes | None: ...

    def save(self, data: bytes) -> None: ...


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


def train(
    pairs: Sequence[Pair],
    config: TrainConfig,
    snapshots: Snapshots,
    on_step: Callable[[int, str], None] = lambda done, note: None,
) -> Trained:
    """Train on the pairs of split `train`, measure on those of `held_out`.

    Args:
        on_step: Told after every step how many are done, and how it went at the last look.

    Raises:
        ModelError: If there is nothing to learn from.
    """
    with _settled(config):
        tokenizer, net, learn, held, left_out = _prepare(pairs, config)
        losses = _fit(net, learn, held, config, snapshots, on_step)
        net.eval()
        return Trained(net, tokenizer, losses, claims_of(net, tokenizer, held), left_out)


@contextmanager
def _settled(config: TrainConfig) -> Iterator[None]:
    """Fixed threads, seed and algorithms inside; as they were after."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(strict)


def _prepare(pairs: Sequence[Pair], config: TrainConfig) -> tuple[Any, Captioner, list[Example], list[Example], int]:
    learn_from = [p for p in pairs if p.split == "train"]
    if not learn_from:
        raise ModelError("table `pairs` has no row of split `train`: nothing to learn from")
    tokenizer = train_tokenizer([t for p in learn_from for t in (p.short, p.dense)], config.model.vocabulary)
    slots = slot_values([p.fields for p in learn_from])
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
    return tokenizer, Captioner(config.model, slots, len(tokenizer)), ready["train"], ready["held_out"], left_out


def rate_at(step: int, config: TrainConfig | LoraConfig) -> float:
    """Learning rate of a step: linear warmup, then a cosine to 0."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def _fit(
    net: Captioner,
    learn: Sequence[Example],
    held: Sequence[Example],
    config: TrainConfig,
    snapshots: Snapshots,
    on_step: Callable[[int, str], None],
) -> list[float]:
    optimiser = torch.optim.AdamW(
        net.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay
    )
    groups = by_shape(learn)
    losses = _resume(net, optimiser, snapshots)
    if losses:
        on_step(len(losses), f"resumed at step {len(losses)}")
    net.train()
    note, saved = "", time.monotonic()
    for step in range(len(losses), config.steps):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, config)
        batch = draw(
            learn, groups, seed=config.seed, step=step, batch=config.batch_size, short_share=config.short_share
        )
        loss, parts = net.loss(*batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), config.max_norm)
        optimiser.step()
        losses.append(float(loss.detach()))
        if time.monotonic() - saved >= config.snapshot_s or step + 1 == config.steps:
            snapshots.save(_pack(net, optimiser, losses))
            saved = time.monotonic()
        if (step + 1) % 50 == 0:
            note = _note(net, held, losses, parts)
        on_step(step + 1, note)
    return losses


def _pack(net: Captioner, optimiser: torch.optim.Optimizer, losses: Sequence[float]) -> bytes:
    buffer = io.BytesIO()
    state = {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "losses": list(losses)}
    torch.save(state, buffer)
    return buffer.getvalue()


def _resume(net: Captioner, optimiser: torch.optim.Optimizer, snapshots: Snapshots) -> list[float]:
    """Take up the snapshot."""
    state = read_snapshot(snapshots)
    if state is None:
        return []
    net.load_state_dict(state["net"])
    optimiser.load_state_dict(state["optimiser"])
    return [float(x) for x in state["losses"]]


def read_snapshot(snapshots: Snapshots) -> dict[str, Any] | None:
    """The state that was kept; one that does not read is as good as none."""
    data = snapshots.load()
    if data is None:
        return None
    try:
        return torch.load(io.BytesIO(data), weights_only=True)  # type: ignore[no-any-return]
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        return None


def _note(net: Captioner, held: Sequence[Example], losses: Sequence[float], parts: dict[str, Tensor]) -> str:
    named = ", ".join(f"{k} {float(v.detach()):.2f}" for k, v in parts.items())
    return f"loss {np.mean(losses[-50:]):.3f} ({named}); held-out fields {field_accuracy(net, held[:64]):.3f}"


@torch.no_grad()
def field_accuracy(net: Captioner, examples: Sequence[Example]) -> float:
    """Share of fields that the heads name rightly; 0 without examples."""
    right: list[bool] = []
    for group in by_shape(examples) if net.slots else ():
        frames = torch.from_numpy(np.stack([examples[i].frames for i in group]))
        named = torch.stack([out.argmax(dim=1) for out in net.field_logits(net.see(frames)[0])], dim=1)
        true = torch.tensor([examples[i].fields for i in group])
        right += [bool(r) for r in (named == true)[true >= 0]]
    return float(np.mean(right)) if right else 0.0


def claims_of(net: Captioner, tokenizer: Any, examples: Sequence[Example], batch: int = 32) -> evaluate.Tally:
    """Caption examples densely, and count their claims against the truth, where it is known."""
    counted = evaluate.Tally()
    known = [(e, e.record) for e in examples if e.record is not None]
    for group in by_shape([e for e, _ in known]):
        for start in range(0, len(group), batch):
            part = group[start : start + batch]
            frames = torch.from_numpy(np.stack([known[i][0].frames for i in part]))
            for i, ids in zip(part, net.write(frames, DENSE_ID, max_tokens=_DENSE_TOKENS)):
                counted.add(_read(decode(tokenizer, ids)[0]), known[i][1])
    return counted


def _read(text: str) -> Fields | None:
    try:
        return parse(text)
    except Unparsable:
        return None
