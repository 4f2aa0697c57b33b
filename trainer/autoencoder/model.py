"""Build, load and use the autoencoder; the one place where pictures become tensors and back.

Pictures are (time, height, width, 3) uint8; inside they are (batch, channel, time, height, width) floats in
[-1, 1].  A latent is the posterior's mean, normalised per channel with statistics kept in the checkpoint's
config (`latents_mean`, `latents_std`, as in diffusers).  Long clips go through in chunks of four frames with a cache
of features, so length costs time and not memory; short ones go through whole, which is faster (`whole.py`), and both
give the same.  The first latent sees the first frame alone.

Source: Wan, arXiv:2503.20314; class `AutoencoderKLWan` of diffusers.
"""

import os
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from schemas.errors import ModelError
from trainer.autoencoder import whole
from trainer.autoencoder.config import AutoencoderConfig
from trainer.shapes import Compression

_WHOLE_PIXELS = 1 << 20
"""Clips of up to so many pixels, over all their frames, go through whole."""


def build(config: AutoencoderConfig) -> Any:
    """A fresh autoencoder; weights follow torch's generator."""
    levels = len(config.dim_mult)
    folded = 3 * config.pixel_patch**2
    return AutoencoderKLWan(
        base_dim=config.base_dim,
        dim_mult=list(config.dim_mult),
        z_dim=config.z_dim,
        num_res_blocks=config.num_res_blocks,
        temperal_downsample=[False] * (levels - 3) + [True, True],
        is_residual=config.is_residual,
        patch_size=config.pixel_patch if config.pixel_patch > 1 else None,
        in_channels=folded,
        out_channels=folded,
        latents_mean=[0.0] * config.z_dim,
        latents_std=[1.0] * config.z_dim,
        scale_factor_temporal=4,
        scale_factor_spatial=config.space,
    )


def load(path: str) -> Any:
    """Load weights by folder, or by hub name.

    Raises:
        ModelError: If there are none of this class.
    """
    for subfolder in (None, "vae"):
        try:
            extra = {"subfolder": subfolder} if subfolder else {}
            return AutoencoderKLWan.from_pretrained(path, use_safetensors=True, **extra).eval().requires_grad_(False)
        except (OSError, ValueError) as e:
            reason = e
    raise ModelError(f"autoencoder `{os.path.basename(path)}` does not load as AutoencoderKLWan: {reason}")


def compression(autoencoder: Any, patch: int) -> Compression:
    """What its config says of itself."""
    c = autoencoder.config
    return Compression(time=int(c.scale_factor_temporal), space=int(c.scale_factor_spatial), patch=patch)


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """(time, height, width, 3) uint8 to (channel, time, height, width) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(3, 0, 1, 2).float() / 127.5 - 1


def to_pictures(video: torch.Tensor) -> np.ndarray:
    """The inverse of `to_tensor`, clipped and rounded."""
    scaled = ((video.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return np.ascontiguousarray(scaled.permute(1, 2, 3, 0).cpu().numpy())


def _statistics(autoencoder: Any) -> tuple[torch.Tensor, torch.Tensor]:
    mean = torch.tensor(autoencoder.config.latents_mean, dtype=torch.float32, device=autoencoder.device)
    std = torch.tensor(autoencoder.config.latents_std, dtype=torch.float32, device=autoencoder.device)
    return mean[:, None, None, None], std[:, None, None, None]


@torch.no_grad()
def encode(autoencoder: Any, pictures: np.ndarray, *, chunked: bool | None = None) -> torch.Tensor:
    """Pictures to a normalised latent (channel, time, height, width), on the autoencoder's device.

    Args:
        chunked: Whether to go in chunks; None does so where the clip is large.
    """
    mean, std = _statistics(autoencoder)
    video = to_tensor(pictures)[None].to(autoencoder.device)
    if video[:, 0].numel() > _WHOLE_PIXELS if chunked is None else chunked:
        latent = autoencoder.encode(video).latent_dist.mode()
    else:
        latent = whole.moments(autoencoder, video).chunk(2, dim=1)[0]
    return (latent[0] - mean) / std


@torch.no_grad()
def decode(autoencoder: Any, latents: torch.Tensor, *, chunked: bool | None = None) -> list[np.ndarray]:
    """Normalised latents (batch, channel, time, height, width) on any device to pictures; `chunked` as in `encode`."""
    mean, std = _statistics(autoencoder)
    z = latents.to(autoencoder.device).float() * std + mean
    c = autoencoder.config
    pixels = z[0, 0].numel() * c.scale_factor_temporal * c.scale_factor_spatial**2
    if pixels > _WHOLE_PIXELS if chunked is None else chunked:
        return [to_pictures(video) for video in autoencoder.decode(z).sample]
    return [to_pictures(whole.pictures(autoencoder, one[None])[0]) for one in z]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio of uint8 pictures, dB."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return 10 * float(np.log10(255.0**2 / max(error, 1e-9)))
