"""Fine-tunes a video-language model of transformers with LoRA on (clip, caption) pairs; its vision tower stays as is.

The model sees in training what it sees in captioning: the same frames (`FrameSpec`), the same processor and chat
template, the same prompt; it is taught the caption and the end of its turn, and nothing else has a loss.  Examples go
through one at a time and their gradients add up, so nothing is padded and memory is that of the longest example.

Draws are keyed by (seed, step) and a snapshot holds adapter, optimiser and losses, so a killed run ends in the same
bytes.  Source: LoRA, arXiv:2106.09685; rates as in Qwen3-VL's and SkyCaptioner's recipes (facts: docs of each field).
Cost: not measured at full size here; that wants a GPU and a hub.
"""

import dataclasses
import io
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from captioner.backends.base import Clip, VlmConfig
from captioner.backends.transformers_vlm import Vlm, adapter_digest, open_vlm
from captioner.frames import FrameSpec
from captioner.prompt import KINDS, prompt
from captioner.train.config import LoraConfig
from captioner.train.data import shown_frames
from captioner.train.early import Watch
from captioner.train.fit import Snapshots, rate_at, read_snapshot
from pipelines.execute import RunLog
from schemas.captions import Pair
from schemas.errors import ModelError
from schemas.store import Store

KIND = "captioner_adapter"
_IGNORED = -100  # torch's cross-entropy leaves such targets out


@dataclasses.dataclass(frozen=True, slots=True)
class Tuned:
    """A finished run."""

    net: Any
    """The peft model."""
    base: str
    """Name of the weights it was tuned from."""
    losses: list[float]
    held_out_first: float
    """Mean loss of held-out captions before the first step; nan without held-out pairs."""
    held_out_last: float
    trained_parameters: int
    left_out: int
    """Pairs whose frames do not decode."""
    best_step: int | None = None
    """The step whose adapter was kept, where training might have stopped early."""


def tune(
    pairs: Sequence[Pair],
    vlm: VlmConfig,
    frames: FrameSpec,
    config: LoraConfig,
    snapshots: Snapshots,
    prompt_version: str,
    on_step: Callable[[int, str], None] = lambda done, note: None,
    curve: Callable[[int], RunLog] | None = None,
) -> Tuned:
    """Train an adapter on the pairs of split `train`, measure on those of `held_out`.

    Args:
        curve: Opens the run's log, given how many steps a snapshot knew.

    Raises:
        ModelError: If the model does not load, or there is nothing to learn from.
    """
    with _settled(config):
        base = open_vlm(dataclasses.replace(vlm, adapter=""))
        learn, held, left_out = _split(pairs, frames)
        if not learn:
            raise ModelError("table `pairs` has no usable row of split `train`: nothing to learn from")
        net = adapted(base.net, config)
        student = _Student(base, net, prompt_version)
        first = student.mean_loss(held)
        losses, watch = _fit(student, learn, held, config, snapshots, on_step, curve)
        last = student.mean_loss(held)
        trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
        return Tuned(net, base.model, losses, first, last, trained, left_out, watch.best_step or None)


@contextmanager
def _settled(config: LoraConfig) -> Iterator[None]:
    """Fixed threads and seed inside; as they were after."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def language_layers(net: Any) -> list[str]:
    """Names of the linear layers that get an adapter: all but the vision tower's and the output head's."""
    head = net.get_output_embeddings()
    names = [
        name
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear) and module is not head and "vis" not in name
    ]
    if not names:
        raise ModelError(f"{type(net).__name__} has no linear layer outside its vision tower")
    return names


def adapted(net: Any, config: LoraConfig) -> Any:
    """The model with fresh adapters; everything else is frozen."""
    import peft

    wanted = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=language_layers(net),
        task_type="CAUSAL_LM",
    )
    return peft.get_peft_model(net, wanted)


def _split(pairs: Sequence[Pair], frames: FrameSpec) -> tuple[list["_Shown"], list["_Shown"], int]:
    ready: dict[str, list[_Shown]] = {"train": [], "held_out": []}
    left_out = 0
    for pair in pairs:
        try:
            clip = Clip(*shown_frames(pair, frames))
        except ValueError:
            left_out += 1
            continue
        ready[pair.split].append(_Shown(clip, {k: getattr(pair, k) for k in KINDS}))
    return ready["train"], ready["held_out"], left_out


@dataclasses.dataclass(frozen=True, slots=True)
class _Shown:
    """A pair as the model is shown it."""

    clip: Clip
    text: Mapping[str, str]


class _Student:
    """The base model's processor and the model that learns."""

    def __init__(self, base: Vlm, net: Any, prompt_version: str) -> None:
        self.base, self.net, self._version = base, net, prompt_version

    def loss(self, shown: _Shown, kind: str) -> torch.Tensor:
        """Mean loss of the caption's tokens and of the end of the turn."""
        inputs = self.base.inputs([shown.clip], prompt(kind, self._version), answers=[shown.text[kind]])
        given = self.base.inputs([shown.clip], prompt(kind, self._version))["input_ids"].shape[1]
        labels = inputs["input_ids"].clone()
        labels[:, :given] = _IGNORED
        return self.net(**inputs, labels=labels).loss  # type: ignore[no-any-return]

    @torch.no_grad()
    def mean_loss(self, examples: Sequence[_Shown]) -> float:
        self.net.eval()
        return float(np.mean([float(self.loss(e, k)) for e in examples for k in KINDS])) if examples else math.nan


def draw(count: int, config: LoraConfig, step: int) -> list[tuple[int, str]]:
    """Which examples a step sees, and which of their captions."""
    rng = np.random.Generator(np.random.Philox(key=[config.seed, step]))
    picked = rng.choice(count, size=min(config.batch_size, count), replace=False)
    kinds = np.where(rng.random(len(picked)) < config.short_share, "short", "dense")
    return [(int(i), str(k)) for i, k in zip(picked, kinds)]


def _fit(
    student: _Student,
    learn: Sequence[_Shown],
    held: Sequence[_Shown],
    config: LoraConfig,
    snapshots: Snapshots,
    on_step: Callable[[int, str], None],
    curve: Callable[[int], RunLog] | None,
) -> tuple[list[float], Watch]:
    weights = {n: p for n, p in student.net.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(weights.values(), lr=config.learning_rate, weight_decay=config.weight_decay)
    watch = Watch(config.patience)
    losses = _resume(weights, optimiser, watch, snapshots)
    if losses:
        on_step(len(losses), f"resumed at step {len(losses)}")
    with curve(len(losses)) if curve else nullcontext() as log:
        looked_at = _spread(held, config.look_pairs)
        _train(student, learn, looked_at, config, weights, optimiser, watch, losses, snapshots, on_step, log)
    if watch.weights is not None:
        _put(weights, watch.weights)
    return losses, watch


def _spread(examples: Sequence[_Shown], most: int) -> list[_Shown]:
    """At most so many, spread over all."""
    count = min(most, len(examples))
    return [examples[i * len(examples) // count] for i in range(count)]


def _train(
    student: _Student,
    learn: Sequence[_Shown],
    looked_at: Sequence[_Shown],
    config: LoraConfig,
    weights: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    watch: Watch,
    losses: list[float],
    snapshots: Snapshots,
    on_step: Callable[[int, str], None],
    log: RunLog | None,
) -> None:
    """Train to the end, or until held-out captions get no better; `losses` grows."""
    saved = time.monotonic()
    while len(losses) < config.steps and not watch.is_over:
        step = len(losses)
        student.net.train()
        torch.manual_seed(config.seed * 1_000_003 + step)  # of the adapter's dropout
        rate = rate_at(step, config)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        drawn = draw(len(learn), config, step)
        total = 0.0
        for i, kind in drawn:
            loss = student.loss(learn[i], kind) / len(drawn)
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(weights.values(), config.max_norm)
        optimiser.step()
        losses.append(total)
        numbers = {"loss": total, "rate": rate}
        if looked_at and len(losses) % config.look_every == 0:
            numbers["held_out_loss"] = student.mean_loss(looked_at)
            watch.look(len(losses), numbers["held_out_loss"], weights)
        if log is not None:
            log.add(len(losses), numbers)
        if time.monotonic() - saved >= config.snapshot_s or len(losses) == config.steps:
            snapshots.save(_pack(weights, optimiser, watch, losses))
            saved = time.monotonic()
        on_step(len(losses), f"loss {np.mean(losses[-20:]):.3f}")


def _pack(
    weights: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer, watch: Watch, losses: Sequence[float]
) -> bytes:
    buffer = io.BytesIO()
    state = {"weights": {n: p.detach() for n, p in weights.items()}, "optimiser": optimiser.state_dict()}
    torch.save({**state, "watch": watch.state(), "losses": list(losses)}, buffer)
    return buffer.getvalue()


def _resume(
    weights: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer, watch: Watch, snapshots: Snapshots
) -> list[float]:
    """Take up the snapshot."""
    state = read_snapshot(snapshots)
    if state is None:
        return []
    _put(weights, state["weights"])
    optimiser.load_state_dict(state["optimiser"])
    watch.resume(state["watch"])
    return [float(x) for x in state["losses"]]


@torch.no_grad()
def _put(weights: Mapping[str, nn.Parameter], values: Mapping[str, torch.Tensor]) -> None:
    for name, value in values.items():
        weights[name].copy_(value)


def save_adapter(store: Store, tuned: Tuned, card: Mapping[str, Any]) -> tuple[str, str]:
    """Write the adapter under the root; returns the digest of its weights and its folder, relative to the root."""
    local = Path(store.scratch()) / "adapter"
    tuned.net.save_pretrained(str(local), safe_serialization=True)
    name = adapter_digest(local)
    rows = "\n".join(f"| {key} | {value} |" for key, value in card.items())
    (local / "README.md").write_text(f"# LoRA adapter {name}\n\nOf `{tuned.base}`.\n\n| | |\n|---|---|\n{rows}\n")
    (local / "dailies.json").write_text(json.dumps({"kind": KIND, "digest": name, "base": tuned.base}, indent=1))
    path = store.publish_folder(local, "checkpoints", KIND, name)
    if local.parent.exists():
        local.parent.rmdir()
    return name, path
