"""A small discriminator that judges patches of single frames: the adversarial option of the autoencoder's training.

Three strided convolutions look at 22 x 22 pixels at a time and say real or not; hinge loss.  It makes texture sharper
and PSNR a little lower, so it is off by default and for footage.  Its weights are no part of the checkpoint, only of
the snapshots, so that a killed run goes on with the same judge.

Sources: PatchGAN, arXiv:1611.07004; its use beside reconstruction, VQGAN arXiv:2012.09841.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from trainer.checkpoint import optimizer_tensors, restore_optimizer

_WIDTH = 32


class Adversary:
    """The discriminator and its own optimiser."""

    def __init__(self, learning_rate: float = 1e-3) -> None:
        self.net = nn.Sequential(
            nn.Conv2d(3, _WIDTH, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(_WIDTH, 2 * _WIDTH, 4, 2, 1),
            nn.GroupNorm(8, 2 * _WIDTH),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * _WIDTH, 1, 4, 1, 1),
        )
        self._adam = torch.optim.AdamW(self.net.parameters(), lr=learning_rate, betas=(0.5, 0.9), weight_decay=0.0)

    def judge(self, video_BCTHW: torch.Tensor) -> torch.Tensor:
        """One number per patch and frame; above 0 means real."""
        return self.net(video_BCTHW.transpose(1, 2).flatten(0, 1))

    def deceive(self, back_BCTHW: torch.Tensor) -> torch.Tensor:
        """The autoencoder's loss: how fake its pictures look.  Gradients of the judge itself are dropped by `learn`."""
        return -self.judge(back_BCTHW).mean()

    def learn(self, video_BCTHW: torch.Tensor, back_BCTHW: torch.Tensor) -> float:
        """One step of the judge; returns its loss (2 is blind, 0 is certain)."""
        real, fake = self.judge(video_BCTHW), self.judge(back_BCTHW.detach())
        loss = functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()
        self._adam.zero_grad(set_to_none=True)
        loss.backward()
        self._adam.step()
        return float(loss.detach())

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything a snapshot holds of it."""
        weights = {f"adversary.{k}": v for k, v in self.net.state_dict().items()}
        return {**weights, **{f"adversary-{k}": v for k, v in optimizer_tensors(self._adam).items()}}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """The inverse of `tensors`."""
        self.net.load_state_dict({k[10:]: v for k, v in tensors.items() if k.startswith("adversary.")})
        restore_optimizer(self._adam, {k[10:]: v for k, v in tensors.items() if k.startswith("adversary-")})
