"""The video autoencoder's settings: its size, how it is trained, or which pretrained one to take."""

import dataclasses

from schemas.ids import CHANGED_ONLY
from trainer.shapes import Compression


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderConfig:
    """A causal 3-D VAE of diffusers' `AutoencoderKLWan` class."""

    pretrained: str | None = None
    """diffusers name or path of a pretrained AutoencoderKLWan (subfolder `vae` is tried too); None trains ours."""
    start_from: str | None = None
    """diffusers name or path of an AutoencoderKLWan to fine-tune; its own sizes then replace those below."""
    base_dim: int = 16
    """Channels of the finest level; Wan2.1 has 96."""
    dim_mult: tuple[int, ...] = (1, 2, 3)
    """Channels of each level over base_dim; each level after the first halves height and width."""
    z_dim: int = 24
    """Latent channels; Wan2.1 has 16 at 8x8, Wan2.2 48 at 16x16. Rendered clips need 24 for 30 dB (docs/log.md)."""
    num_res_blocks: int = 1
    """Residual blocks per level; Wan has 2."""
    pixel_patch: int = 2
    """Pixels that are folded into channels first (1: none, Wan2.1; 2: Wan2.2)."""
    is_residual: bool = False
    """Wan2.2's averaging shortcuts around each level (DC-AE, arXiv:2410.10733): trains in far fewer steps."""
    start_from_components: bool = False
    """Begin as the clips' principal components where the shape allows (`principal.py`), not as a random linear map.
    Wants a rate of a tenth: at the usual one it first forgets what it began with (docs/log.md)."""
    steps: int = 600
    """Optimiser steps."""
    batch: int = 8
    """Pictures per step while only pictures are seen, all of one size."""
    image_share: float = 0.6
    """Share of the steps, from the start, that see single pictures only: cheap, and videos build on it."""
    frames: tuple[int, ...] = (1, 5, 9)
    """Lengths that the other steps take turns at (drawn evenly), each 1 + 4k."""
    video_batch: int = 4
    """Clips per step in those."""
    optimizer: str = "muon"
    """muon (kernels by orthogonal momentum, the rest by AdamW), or adamw for all, as is usual in fine-tuning."""
    learning_rate: float = 6e-3
    """Peak of AdamW's learning rate; 6e-4 after a start from components."""
    kernel_ratio: float = 5.0
    """Muon's rate over AdamW's: each step turns a kernel by about this share of its size."""
    warmup_steps: int = 20
    """Steps of linear warm-up; then cosine to 2 % of the peak."""
    kl_weight: float = 1e-6
    """Weight of the KL term, per latent number, beside reconstruction per pixel. Channels that carry little fall idle
    at this weight, because Muon follows a small steady gradient as readily as a large one; 1e-8 keeps more."""
    square_weight: float = 2.0
    """Weight of the squared error beside the absolute error."""
    perceptual: str | None = None
    """open_clip name, or folder of an open_clip model such as a root's `checkpoints/clip/...`; None: no such loss."""
    perceptual_weight: float = 0.1
    """Weight of the distance between its features, where `perceptual` is set."""
    adversarial_weight: float = 0.0
    """Weight of a small patch discriminator's judgement; 0 trains none. It buys sharpness, not PSNR."""
    adversarial_from: float = 0.5
    """Share of the steps after which the discriminator counts; it learns from a tenth of the steps earlier."""
    balance: float = dataclasses.field(default=0.0, metadata=CHANGED_ONLY)
    """Exponent, [0, 1]: the variance that each latent channel is given is this power of what it weighs in pixels. At 0
    all have unit variance, so a channel of fine texture counts as much to the transformer as one of the picture's
    colour; at 1 they weigh what pixels do. The mean over channels is 1."""
    max_clips: int = 2000
    """Most clips held in memory to train on, chosen by id."""
    held_out: float = 0.08
    """Share of clips that are only measured on, [0, 0.5]."""
    seed: int = 0
    """Seed of weights, batches and posterior noise."""
    threads: int = 2
    """torch threads in training; a result is repeatable at one number of threads."""
    snapshot_every_s: float = 20.0
    """Seconds between snapshots."""

    def __post_init__(self) -> None:
        if self.optimizer not in ("muon", "adamw"):
            raise ValueError(f"optimizer must be muon or adamw, got `{self.optimizer}`")
        if min(self.adversarial_weight, self.perceptual_weight, self.kl_weight, self.square_weight) < 0:
            raise ValueError("weights of losses must be at least 0")
        if self.pretrained and self.start_from:
            raise ValueError("pretrained takes an autoencoder as it is, start_from trains it on: one of them must go")
        if len(self.dim_mult) < 3:
            raise ValueError(f"dim_mult needs three levels or more for 4x in time, got {self.dim_mult}")
        if any((n - 1) % 4 for n in self.frames) or not self.frames:
            raise ValueError(f"frames must each be 1 + a multiple of 4, got {self.frames}")
        if (
            not 0 <= self.held_out <= 0.5
            or not 0 <= self.image_share <= 1
            or not 0 <= self.adversarial_from <= 1
            or self.video_batch < 1
            or self.steps < 0
            or self.batch < 1
            or not 0 <= self.balance <= 1
            or self.pixel_patch not in (1, 2, 4)
        ):
            raise ValueError(
                "held_out in [0, 0.5], image_share and balance in [0, 1], steps >= 0, batches >= 1 and pixel_patch 1, "
                "2 or 4 are needed"
            )

    @property
    def space(self) -> int:
        """Pixels per latent cell along height and width."""
        return self.pixel_patch * 2 ** (len(self.dim_mult) - 1)

    def compression(self, patch: int) -> Compression:
        """With the transformer's patch."""
        return Compression(time=4, space=self.space, patch=patch)
