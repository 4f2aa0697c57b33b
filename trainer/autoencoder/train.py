"""Train the autoencoder on clip files, at the size that latents will have.

Absolute plus squared error, and a little KL: the latent must hold the picture first (no adversary, no
perceptual net: neither is needed for a diffusion model to learn, and both would have to be downloaded).
Images are one-frame videos: the first part of the run sees only single pictures (a still video then already
works, see `start.py`), the rest takes turns at clip lengths.  What a step sees follows from (seed, step), so a
killed run goes on where its snapshot was and ends with the same bytes.

Cost: set by `steps`; the demo's is about two CPU minutes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pipelines.execute import Progress
from trainer import randomness
from trainer.autoencoder.config import AutoencoderConfig
from trainer.autoencoder.model import build, decode, encode, psnr, to_tensor
from trainer.autoencoder.pictures import first_frames
from trainer.autoencoder.start import near_linear
from trainer.checkpoint import Snapshots, optimizer_tensors, restore_optimizer


def train(config: AutoencoderConfig, clips: Mapping[str, np.ndarray], snapshots: Snapshots) -> tuple[Any, float]:
    """Train on pictures by clip id; returns the autoencoder (latent statistics set) and its last loss.

    Raises:
        ValueError: If there are no clips.
    """
    if not clips:
        raise ValueError("nothing to train the autoencoder on: no clip file could be read")
    torch.manual_seed(randomness.torch_seed(config.seed, "autoencoder"))
    model = build(config)
    near_linear(model, config.z_dim)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    start, tensors = snapshots.latest()
    if tensors:
        model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        restore_optimizer(optimizer, tensors)
    groups = _by_size(clips)
    progress = Progress("autoencoder", config.steps, "step")
    progress.advance(start)
    loss = math.nan
    for step in range(start, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * rate(step, config)
        loss = _step(model, optimizer, _batch(config, clips, groups, step, model), config, step)
        progress.advance(note=f"loss {loss:.4f}")
        if snapshots.due():
            state = {f"model.{k}": v for k, v in model.state_dict().items()}
            snapshots.save(step + 1, {**state, **optimizer_tensors(optimizer)})
    progress.close()
    model.eval().requires_grad_(False)
    set_statistics(model, list(clips.values()))
    return model, loss


def rate(step: int, config: AutoencoderConfig) -> float:
    """Share of the peak learning rate: linear warm-up, then cosine to 2 %."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / max(1, config.steps))))


def _by_size(clips: Mapping[str, np.ndarray]) -> list[list[str]]:
    groups: dict[tuple[int, ...], list[str]] = {}
    for clip_id in sorted(clips):
        groups.setdefault(clips[clip_id].shape[1:3], []).append(clip_id)
    return [groups[k] for k in sorted(groups)]


def _batch(
    config: AutoencoderConfig, clips: Mapping[str, np.ndarray], groups: Sequence[Sequence[str]], step: int, model: Any
) -> torch.Tensor:
    """The step's pictures: one size, one length, drawn by the step's number."""
    rng = randomness.generator(config.seed, "autoencoder", step, "batch")
    share = np.cumsum([len(g) for g in groups])
    members = groups[int(np.searchsorted(share, rng.integers(share[-1]), side="right"))]
    images = step < config.image_share * config.steps
    chosen = [members[i] for i in rng.integers(len(members), size=config.batch if images else config.video_batch)]
    length = min(1 if images else int(rng.choice(config.frames)), min(len(clips[c]) for c in chosen))
    compression = config.compression(1)
    parts = []
    for clip_id in chosen:
        start = int(rng.integers(len(clips[clip_id]) - length + 1))
        parts.append(to_tensor(first_frames(clips[clip_id], length, start, compression)))
    return torch.stack(parts)


def _step(model: Any, optimizer: Any, video: torch.Tensor, config: AutoencoderConfig, step: int) -> float:
    posterior = model.encode(video).latent_dist
    draw = randomness.noise(config.seed, "autoencoder", step, tuple(posterior.mean.shape))
    back = model.decode(posterior.mean + posterior.std * torch.from_numpy(draw)).sample
    error = back - video
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    loss = error.abs().mean() + config.square_weight * error.square().mean() + config.kl_weight * kl
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def set_statistics(model: Any, clips: Sequence[np.ndarray], limit: int = 256) -> None:
    """Measure mean and standard deviation of each latent channel and store them in the config."""
    latents = torch.cat([encode(model, c).flatten(1) for c in clips[:limit]], dim=1)
    mean = latents.mean(1)
    std = latents.std(1).clamp_min(1e-4)
    model.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())


def measure(model: Any, clips: Sequence[np.ndarray]) -> float | None:
    """Mean PSNR (dB) of what comes back; None without clips."""
    if not clips:
        return None
    return float(np.mean([psnr(c, decode(model, encode(model, c)[None])[0]) for c in clips]))
