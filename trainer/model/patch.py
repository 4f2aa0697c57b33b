"""Latents to tokens and back: (channel, time, height, width) to (tokens, channel x patch x patch)."""

import torch

from trainer.shapes import TokenGrid


def patchify(latent: torch.Tensor, patch: int) -> torch.Tensor:
    """Tokens in the order time, height, width; a token's numbers are channel, row, column.

    Raises:
        ValueError: If height or width is no multiple of the patch.
    """
    channels, frames, height, width = latent.shape
    if height % patch or width % patch:
        raise ValueError(f"a latent of {height}x{width} cells does not divide into patches of {patch}")
    x = latent.reshape(channels, frames, height // patch, patch, width // patch, patch)
    return x.permute(1, 2, 4, 0, 3, 5).reshape(-1, channels * patch * patch)


def unpatchify(tokens: torch.Tensor, grid: TokenGrid, patch: int) -> torch.Tensor:
    """The inverse of `patchify`."""
    channels = tokens.shape[1] // (patch * patch)
    x = tokens.reshape(grid.frames, grid.height, grid.width, channels, patch, patch)
    return x.permute(3, 0, 1, 4, 2, 5).reshape(channels, grid.frames, grid.height * patch, grid.width * patch)
