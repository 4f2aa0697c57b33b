"""The small text model that writes a dense caption behind a prompt: a tiny Llama over our own byte-level BPE.

    <short> prompt <dense> caption <end>

Trained on the manifest's captions alone (prompts.py makes the prompts), so it can say what they say and nothing else.
Only the caption has a loss.  Draws are keyed by (seed, step) and a snapshot holds weights, optimiser and losses: a
killed run ends in the same bytes.  Cost: benchmarks/results/expansion.json.
"""

import dataclasses
import io
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captioner.expand.config import LmTraining
from captioner.expand.prompts import Source, pair
from captioner.train.data import pad
from captioner.train.fit import Snapshots, rate_at, read_snapshot
from captioner.train.settled import settled
from captioner.train.tokenizer import DENSE_ID, END_ID, PAD_ID, SHORT_ID, decode, encode, train_tokenizer
from pipelines.execute import RunLog
from schemas.errors import ModelError

_IGNORED = -100  # torch's cross-entropy leaves such targets out
_SPLIT_SEED = 0x5EED


@dataclasses.dataclass(frozen=True, slots=True)
class TrainedLm:
    """A finished run."""

    net: Any
    tokenizer: Any
    losses: list[float]
    held_out_loss: float
    """Mean loss of held-out captions behind their short captions; nan without any."""
    left_out: int
    """Captions longer than the model reads."""


def build(config: LmTraining, vocabulary: int) -> Any:
    """A model with fresh weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=config.width,
            intermediate_size=config.width * 8 // 3 // 8 * 8,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            initializer_range=config.width**-0.5,  # the usual 0.02 is meant for a width of thousands (docs/log.md)
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            pad_token_id=PAD_ID,
            bos_token_id=None,
            eos_token_id=END_ID,
        )
    )


def train_lm(
    sources: Sequence[Source],
    config: LmTraining,
    snapshots: Snapshots,
    on_step: Callable[[int, str], None] = lambda done, note: None,
    curve: Callable[[int], RunLog] | None = None,
) -> TrainedLm:
    """Train on captions; a share of them is held out.

    Raises:
        ModelError: If no caption is short enough to learn from.
    """
    with settled(config.threads, config.seed):
        tokenizer = train_tokenizer([t for s in sources for t in (s.short, s.dense)], config.vocabulary)
        fits = [s for s in sources if len(_joined(tokenizer, s.short, s.dense)[0]) <= config.max_tokens]
        order = np.random.Generator(np.random.Philox(key=[config.seed, _SPLIT_SEED])).permutation(len(fits))
        held = [fits[i] for i in order[: int(len(fits) * config.held_out)]]
        learn = [fits[i] for i in order[len(held) :]]
        if not learn:
            raise ModelError(f"none of {len(sources)} captions has at most {config.max_tokens} tokens with its prompt")
        net = build(config, len(tokenizer))
        losses = _fit(net, tokenizer, learn, config, snapshots, on_step, curve)
        net.eval()
        return TrainedLm(net, tokenizer, losses, _mean_loss(net, tokenizer, held), len(sources) - len(fits))


def _joined(tokenizer: Any, prompt: str, dense: str) -> tuple[list[int], list[int]]:
    """Ids of a pair, and its targets: the caption's alone."""
    asked = [SHORT_ID, *encode(tokenizer, prompt), DENSE_ID]
    said = [*encode(tokenizer, dense), END_ID]
    return [*asked, *said], [*[_IGNORED] * len(asked), *said]


def _loss(net: Any, tokenizer: Any, pairs: Sequence[tuple[str, str]], most: int) -> Tensor:
    rows = [(ids, targets) for ids, targets in (_joined(tokenizer, *p) for p in pairs) if len(ids) <= most]
    ids = pad([r[0] for r in rows])
    targets = pad([r[1] for r in rows])
    targets[ids == PAD_ID] = _IGNORED
    return net(input_ids=ids, attention_mask=(ids != PAD_ID).long(), labels=targets).loss  # type: ignore[no-any-return]


@torch.no_grad()
def _mean_loss(net: Any, tokenizer: Any, held: Sequence[Source]) -> float:
    if not held:
        return math.nan
    return float(_loss(net, tokenizer, [(s.short, s.dense) for s in held], 1 << 20))


def _fit(
    net: Any,
    tokenizer: Any,
    learn: Sequence[Source],
    config: LmTraining,
    snapshots: Snapshots,
    on_step: Callable[[int, str], None],
    curve: Callable[[int], RunLog] | None,
) -> list[float]:
    optimiser = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    losses: list[float] = []
    if (state := read_snapshot(snapshots)) is not None:
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        losses = [float(x) for x in state["losses"]]
        on_step(len(losses), f"resumed at step {len(losses)}")
    net.train()
    saved = time.monotonic()
    with curve(len(losses)) if curve else nullcontext() as log:
        for step in range(len(losses), config.steps):
            rate = rate_at(step, config)
            for group in optimiser.param_groups:
                group["lr"] = rate
            rng = np.random.Generator(np.random.Philox(key=[config.seed, step]))
            drawn = [
                pair(learn, int(rng.integers(len(learn))), rng, config.recombined) for _ in range(config.batch_size)
            ]
            loss = _loss(net, tokenizer, drawn, config.max_tokens)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            losses.append(float(loss.detach()))
            if log is not None:
                log.add(step + 1, {"loss": losses[-1], "rate": rate})
            if time.monotonic() - saved >= config.snapshot_s or step + 1 == config.steps:
                snapshots.save(_pack(net, optimiser, losses))
                saved = time.monotonic()
            on_step(step + 1, f"loss {np.mean(losses[-20:]):.3f}")
    return losses


def _pack(net: Any, optimiser: torch.optim.Optimizer, losses: Sequence[float]) -> bytes:
    buffer = io.BytesIO()
    torch.save({"net": net.state_dict(), "optimiser": optimiser.state_dict(), "losses": list(losses)}, buffer)
    return buffer.getvalue()


@torch.no_grad()
def write(
    net: Any, tokenizer: Any, prompt: str, *, count: int, temperature: float, max_tokens: int, seed: int
) -> list[str]:
    """Captions drawn behind a prompt; one that does not end within the budget is left out."""
    ids = torch.tensor([[SHORT_ID, *encode(tokenizer, prompt), DENSE_ID]])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rows = net.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_tokens,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            num_return_sequences=count,
            pad_token_id=PAD_ID,
            eos_token_id=END_ID,
        )
    texts = [decode(tokenizer, [int(i) for i in row[ids.shape[1] :]]) for row in rows]
    return [text for text, ended in texts if ended]
