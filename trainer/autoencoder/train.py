"""Train the autoencoder on clip files, at the size that latents will have.

Absolute plus squared error, and a little KL: the latent must hold the picture first.  Features of a CLIP tower and a
small adversary are options for footage; neither is needed for a diffusion model to learn.  Kernels follow Muon
(`trainer/muon.py`), which is worth 5 dB here at equal cost.  Images are one-frame videos: the first part of the run
sees only single pictures (a still video then already works, see `start.py`), the rest takes turns at clip lengths.
What a step sees follows from (seed, step), so a killed run goes on where its snapshot was and ends with the same bytes.

Cost: set by `steps`; the demo's is about two CPU minutes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pipelines.execute import Progress
from trainer import randomness
from trainer.autoencoder import principal, whole
from trainer.autoencoder.adversary import Adversary
from trainer.autoencoder.config import AutoencoderConfig
from trainer.autoencoder.model import build, compression, encode, load, to_tensor
from trainer.autoencoder.perceptual import Perceptual
from trainer.autoencoder.pictures import first_frames
from trainer.autoencoder.start import near_linear
from trainer.checkpoint import Snapshots, optimizer_tensors, restore_optimizer
from trainer.muon import Muon

_LOG_VARIANCE = (-30.0, 20.0)  # as diffusers clips it
_WEIGHED, _SMALL = 8, 0.1  # clips, and noise in standard deviations, that channels are weighed with


def train(
    config: AutoencoderConfig,
    clips: Mapping[str, np.ndarray],
    snapshots: Snapshots,
    log: Callable[[int, Mapping[str, float]], None] | None = None,
) -> tuple[Any, float]:
    """Train on pictures by clip id; returns the autoencoder (latent statistics set) and its last loss.

    Args:
        log: Takes the step, counted from 1, and its numbers.

    Raises:
        ValueError: If there are no clips.
        ModelError: If what `start_from` or `perceptual` names does not load.
    """
    if not clips:
        raise ValueError("nothing to train the autoencoder on: no clip file could be read")
    torch.manual_seed(randomness.torch_seed(config.seed, "autoencoder"))
    begin, tensors = snapshots.latest()
    model = start(config, () if tensors else [clips[c] for c in sorted(clips)])
    optimizer = _optimizer(config, model)
    losses = Losses(config)
    if tensors:
        model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        restore_optimizer(optimizer, tensors)
        losses.restore(tensors)
    groups = _by_size(clips)
    progress = Progress("autoencoder", config.steps, "step")
    progress.advance(begin)
    loss = math.nan
    for step in range(begin, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * rate(step, config)
        video = _batch(config, clips, groups, step, compression(model, 1))
        numbers = _step(model, optimizer, video, config, step, losses)
        loss = numbers["loss"]
        progress.advance(note=f"loss {loss:.4f}")
        if log is not None:
            log(step + 1, numbers)
        if snapshots.due():
            state = {f"model.{k}": v for k, v in model.state_dict().items()}
            snapshots.save(step + 1, {**state, **optimizer_tensors(optimizer), **losses.tensors()})
    progress.close()
    model.eval().requires_grad_(False)
    set_statistics(model, list(clips.values()), config.balance)
    return model, loss


def start(config: AutoencoderConfig, clips: Sequence[np.ndarray] = ()) -> Any:
    """What training begins with: the named weights, the clips' principal components, or without clips a linear map."""
    if config.start_from:
        return load(config.start_from).train().requires_grad_(True)
    model = build(config)
    near_linear(model, config.z_dim)
    if config.start_from_components and clips and principal.fits(model):
        principal.from_components(model, clips)
    return model


def rate(step: int, config: AutoencoderConfig) -> float:
    """Share of the peak learning rate: linear warm-up, then cosine to 2 %."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / max(1, config.steps))))


def _optimizer(config: AutoencoderConfig, model: Any) -> torch.optim.Optimizer:
    kernels: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for p in model.parameters():  # a norm's scale has four dimensions too, but is a vector
        is_kernel = config.optimizer == "muon" and p.dim() >= 4 and min(p.flatten(1).shape) > 1
        (kernels if is_kernel else others).append(p)
    return Muon(kernels, others, lr=config.learning_rate, matrix_ratio=config.kernel_ratio)


def _by_size(clips: Mapping[str, np.ndarray]) -> list[list[str]]:
    groups: dict[tuple[int, ...], list[str]] = {}
    for clip_id in sorted(clips):
        groups.setdefault(clips[clip_id].shape[1:3], []).append(clip_id)
    return [groups[k] for k in sorted(groups)]


def _batch(
    config: AutoencoderConfig, clips: Mapping[str, np.ndarray], groups: Sequence[Sequence[str]], step: int, sizes: Any
) -> torch.Tensor:
    """The step's pictures: one size, one length, drawn by the step's number."""
    rng = randomness.generator(config.seed, "autoencoder", step, "batch")
    share = np.cumsum([len(g) for g in groups])
    members = groups[int(np.searchsorted(share, rng.integers(share[-1]), side="right"))]
    images = step < config.image_share * config.steps
    chosen = [members[i] for i in rng.integers(len(members), size=config.batch if images else config.video_batch)]
    length = min(1 if images else int(rng.choice(config.frames)), min(len(clips[c]) for c in chosen))
    parts = []
    for clip_id in chosen:
        begin = int(rng.integers(len(clips[clip_id]) - length + 1))
        parts.append(to_tensor(first_frames(clips[clip_id], length, begin, sizes)))
    return torch.stack(parts)


class Losses:
    """The terms of the loss, and the judge that one of them needs."""

    def __init__(self, config: AutoencoderConfig) -> None:
        self._config = config
        self._perceptual = Perceptual(config.perceptual) if config.perceptual else None
        self._adversary = Adversary() if config.adversarial_weight else None

    def of(
        self, video: torch.Tensor, back: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor, step: int
    ) -> dict[str, torch.Tensor]:
        """Each term, weighted."""
        config = self._config
        error = back - video
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        terms = {
            "absolute": error.abs().mean(),
            "square": config.square_weight * error.square().mean(),
            "kl": config.kl_weight * kl,
        }
        if self._perceptual is not None:
            terms["perceptual"] = config.perceptual_weight * self._perceptual.distance(video, back)
        if self._adversary is not None and step >= config.adversarial_from * config.steps:
            terms["adversarial"] = config.adversarial_weight * self._adversary.deceive(back)
        return terms

    def after(self, video: torch.Tensor, back: torch.Tensor, step: int) -> dict[str, float]:
        """The judge's own step, once it is nearly its turn."""
        if self._adversary is None or step < (self._config.adversarial_from - 0.1) * self._config.steps:
            return {}
        return {"judge": self._adversary.learn(video, back)}

    def tensors(self) -> dict[str, torch.Tensor]:
        """For a snapshot."""
        return {} if self._adversary is None else self._adversary.tensors()

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """The inverse of `tensors`."""
        if self._adversary is not None:
            self._adversary.restore(tensors)


def _step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    video: torch.Tensor,
    config: AutoencoderConfig,
    step: int,
    losses: Losses,
) -> dict[str, float]:
    mean, log_variance = whole.moments(model, video).chunk(2, dim=1)
    log_variance = log_variance.clamp(*_LOG_VARIANCE)
    draw = torch.from_numpy(randomness.noise(config.seed, "autoencoder", step, tuple(mean.shape)))
    back = whole.pictures(model, mean + (0.5 * log_variance).exp() * draw)
    terms = losses.of(video, back, mean, log_variance, step)
    loss = torch.stack(list(terms.values())).sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    numbers = {name: float(value.detach()) for name, value in terms.items()}
    return {"loss": float(loss.detach()), **numbers, **losses.after(video, back, step)}


def set_statistics(model: Any, clips: Sequence[np.ndarray], balance: float = 0.0, limit: int = 256) -> None:
    """Measure what each latent channel is scaled by and store it in the config.

    Args:
        balance: See `AutoencoderConfig`.
    """
    zeros = [0.0] * model.config.z_dim
    model.register_to_config(latents_mean=zeros, latents_std=[1.0] * model.config.z_dim)
    latents = torch.cat([encode(model, c).flatten(1) for c in clips[:limit]], dim=1)
    mean = latents.mean(1)
    std = latents.std(1).clamp_min(1e-4)
    model.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    if balance:
        variance = weights(model, clips[:_WEIGHED]) ** balance
        std = std / (variance / variance.mean()).sqrt()
        model.register_to_config(latents_std=std.tolist())


@torch.no_grad()
def weights(model: Any, clips: Sequence[np.ndarray]) -> torch.Tensor:
    """Squared change of the decoded pixels per squared change of each normalised channel, (channels,).

    Measured with small noise in one channel at a time: a trained decoder is close to linear in it.
    """
    found = torch.zeros(model.config.z_dim)
    std = torch.tensor(model.config.latents_std)
    for clip in clips:
        latent = whole.moments(model, to_tensor(clip)[None]).chunk(2, dim=1)[0]
        before = whole.pictures(model, latent)
        for channel in range(len(found)):
            noise = torch.from_numpy(randomness.noise(channel, "weight", 0, tuple(latent[:, channel].shape)))
            moved = latent.clone()
            moved[:, channel] += _SMALL * std[channel] * noise
            found[channel] += (whole.pictures(model, moved) - before).square().mean() / _SMALL**2
    return found.clamp_min(1e-12) / len(clips)
