"""Noise to video: Euler steps on the velocity, guided by text, with the same tasks as training.

Prompts of one shape go through the transformer together, each beside its own text-free twin (classifier-free
guidance), in one pack.  Given tokens (the first latent frame for image-to-video) stay as they are at every
step.  Noise follows from the prompt's seed and shape alone, so a prompt gives the same video in any company.

Cost: 2 x steps forward passes, and one decode.  Sources: arXiv:2209.03003 (Euler), arXiv:2207.12598 (guidance).
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trainer import randomness
from trainer.autoencoder.model import decode, encode
from trainer.config import SamplingConfig
from trainer.flow import FlowConfig, euler_step, guided, solver_times
from trainer.model.dit import DiT, Pack
from trainer.model.patch import patchify, unpatchify
from trainer.model.rope import coordinates
from trainer.shapes import Compression, PixelShape, TokenGrid, latent_shape, token_grid
from trainer.tasks import image_to_video
from trainer.tasks.base import nothing


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One video to make."""

    prompt: str
    seed: int
    image: np.ndarray | None = None
    """(height, width, 3) uint8 first picture, for image-to-video."""


@dataclasses.dataclass(frozen=True)
class Generator:
    """Loaded models and what they were trained with."""

    dit: DiT
    autoencoder: Any
    flow: FlowConfig
    sizes: Compression
    fps: float

    @torch.no_grad()
    def videos(self, requests: Sequence[Request], shape: PixelShape, config: SamplingConfig) -> list[np.ndarray]:
        """Make videos of one shape, (time, height, width, 3) uint8 each.

        Raises:
            ValueError: If the shape does not divide into cells, or an image has another size.
        """
        grid = token_grid(latent_shape(shape, self.sizes), self.sizes)
        x, given = self._start(requests, grid, shape)
        fps = config.fps or self.fps
        times = solver_times(config.steps, grid.num_tokens, self.flow)
        texts = [r.prompt for r in requests]
        for t, t_next in itertools.pairwise(times):
            velocity = self._velocity(x, given, texts, float(t), grid, 1 / fps, config.guidance)
            x = torch.where(given[..., None], x, euler_step(x, velocity, float(t), float(t_next)))
        latents = torch.stack([unpatchify(tokens, grid, self.sizes.patch) for tokens in x])
        return decode(self.autoencoder, latents)

    def _start(
        self, requests: Sequence[Request], grid: TokenGrid, shape: PixelShape
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise, with the given tokens in their places, and which those are."""
        rows, masks = [], []
        for request in requests:
            size = (grid.num_tokens, self.dit.token_channels)
            x = torch.from_numpy(randomness.noise(request.seed, f"{shape}", 0, size, "sample"))
            layout = nothing(grid) if request.image is None else image_to_video.layout(grid.frames)
            given = torch.from_numpy(layout.given(grid).reshape(-1))
            if request.image is not None:
                if request.image.shape[:2] != (shape.height, shape.width):
                    raise ValueError(f"the image is {request.image.shape[:2]}, the video {shape.height, shape.width}")
                x[given] = patchify(encode(self.autoencoder, request.image[None]), self.sizes.patch)
            rows.append(x)
            masks.append(given)
        return torch.stack(rows), torch.stack(masks)

    def _velocity(
        self,
        x: torch.Tensor,
        given: torch.Tensor,
        texts: list[str],
        t: float,
        grid: TokenGrid,
        seconds_per_frame: float,
        guidance: float,
    ) -> torch.Tensor:
        """Guided velocity of every prompt, (prompts, tokens, channels)."""
        copies = 1 if guidance == 1 else 2
        count = len(texts) * copies
        place = torch.from_numpy(coordinates(grid, seconds_per_frame, self.sizes))
        pack = Pack(
            x=x.repeat(copies, 1, 1).flatten(0, 1),
            positions=place.repeat(count, 1),
            given=given.repeat(copies, 1).flatten(),
            lengths=(grid.num_tokens,) * count,
            t=torch.full((count,), t, dtype=torch.float32),
            texts=tuple(texts + [""] * (count - len(texts))),
        )
        velocity = self.dit(pack).unflatten(0, (count, grid.num_tokens))
        if copies == 1:
            return velocity
        with_text, without_text = velocity.chunk(2)
        return guided(with_text, without_text, guidance)
