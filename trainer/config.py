"""The trainer's whole config, composed of its parts.  Loads without torch, for the sake of whoever lists stages."""

import dataclasses
import math

from schemas.ids import CHANGED_ONLY
from schemas.rendering import RenderPolicy
from trainer.autoencoder.config import AutoencoderConfig
from trainer.credentials import CredentialsConfig
from trainer.device import check_name, check_precision
from trainer.flow import FlowConfig
from trainer.launch import LaunchConfig
from trainer.model.config import ModelConfig
from trainer.plan import PlanConfig
from trainer.prompt_policy import PromptPolicy
from trainer.shapes import ShapeConfig
from trainer.tasks import TASKS
from trainer.validate import ValidationConfig
from trainer.watch import WatchConfig


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LatentConfig:
    """How latents are made."""

    rows_per_shard: int = 32
    """Clips of one shard, and of one work item."""
    tails: int = 0
    """Tails of each clip that are encoded on their own, for extend_backward, connect and fill_in; each costs half
    a clip's encoding and storage."""
    regions: int = 0
    """Boxes of each clip that are encoded apart from what is around them, by turns the around (inpaint, edit_region)
    and the box (outpaint); each costs a clip's encoding and storage."""

    def __post_init__(self) -> None:
        if self.rows_per_shard < 1:
            raise ValueError(f"rows_per_shard must be at least 1, got {self.rows_per_shard}")
        if self.tails < 0 or self.regions < 0:
            raise ValueError(f"tails and regions must be at least 0, got {self.tails} and {self.regions}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DrawConfig:
    """What is drawn for each visit."""

    tasks: tuple[str, ...] = ("text_to_video:0.9", "image_to_video:0.1")
    """Tasks and their relative weights, `name:weight`."""
    short_captions: float = 0.2
    """Share of visits that read the short caption instead of the dense one; DALL-E 3 blends 5 % of originals."""
    no_caption: float = 0.1
    """Share of visits without a caption, for guidance; 0.1 as in most models."""
    render: RenderPolicy = RenderPolicy(short=0.0)
    """How captions are told beyond that: JSON, the source's own text, other words, field order, dropout, a budget."""

    def __post_init__(self) -> None:
        if not 0 <= self.short_captions <= 1 or not 0 <= self.no_caption < 1:
            raise ValueError("short_captions must lie in [0, 1] and no_caption in [0, 1)")
        self.weights()
        self.rendering()

    def rendering(self) -> RenderPolicy:
        """The whole policy of what is read of a caption."""
        return dataclasses.replace(self.render, short=max(self.short_captions, self.render.short))

    def weights(self) -> dict[str, float]:
        """Weight by task.

        Raises:
            ValueError: If a task is unknown or an entry is not `name:weight`.
        """
        found = {}
        for entry in self.tasks:
            name, _, weight = entry.partition(":")
            if name not in TASKS:
                raise ValueError(f"unknown task `{name}`; known: {', '.join(TASKS)}")
            found[name] = float(weight or 1)
        return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """How weights follow gradients."""

    steps: int = 1000
    """Optimiser steps."""
    kind: str = dataclasses.field(default="adamw", metadata=CHANGED_ONLY)
    """adamw, or muon: matrices of blocks follow momentum made orthogonal, the rest AdamW. Not for sharded weights."""
    learning_rate: float = 2e-3
    """Peak of AdamW's rate; DiT uses 1e-4 at width 1152, small models take more."""
    matrix_rate: float = dataclasses.field(default=0.02, metadata=CHANGED_ONLY)
    """Peak of Muon's rate: the largest singular value of a matrix's step. It follows the same schedule."""
    warmup_steps: int = 50
    """Steps of linear warm-up; then cosine to `final_rate` of the peak."""
    final_rate: float = 0.05
    """Share of the peak at the end; 1 keeps the rate constant."""
    betas: tuple[float, ...] = (0.9, 0.99)
    """AdamW's moments."""
    epsilon: float = 1e-8
    """AdamW's epsilon; 1e-15 in Open-Sora with QK norm."""
    weight_decay: float = 0.0
    """AdamW's decay; 0 in DiT."""
    clip_norm: float = 1.0
    """Largest gradient norm; what is longer is clipped."""
    spike: float = 10.0
    """A step whose gradient norm is over this many times the median of the last 64 is skipped; 0 skips only a gradient
    that is not finite."""
    capsules: int = 4
    """Skipped steps of a run that leave a crash capsule; each holds the weights."""
    precision: str = "float32"
    """float32, or bfloat16: autocast with float32 weights. On CPUs without AMX bfloat16 is slower."""
    ema: float = 0.995
    """Decay of the average weights that sampling uses, reached gradually; DiT uses 0.9999 over 400k steps."""
    threads: int = 2
    """torch threads; a result is repeatable at one number of threads."""
    snapshot_every_s: float = 20.0
    """Seconds between snapshots."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.learning_rate <= 0 or not 0 <= self.ema < 1 or len(self.betas) != 2:
            raise ValueError("steps >= 1, learning_rate > 0, ema in [0, 1) and two betas are needed")
        if self.kind not in ("adamw", "muon") or self.matrix_rate <= 0:
            raise ValueError(f"kind must be adamw or muon, got `{self.kind}`, and matrix_rate over 0")
        if self.spike < 0 or 0 < self.spike <= 1 or self.capsules < 0:
            raise ValueError("spike must be 0 or over 1, and capsules at least 0")
        check_name(self.device)
        check_precision(self.precision)

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * warm * (self.final_rate + (1 - self.final_rate) * cosine)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """How videos are made."""

    steps: int = 24
    """Euler steps; Wan uses 50."""
    guidance: float = 3.0
    """Scale of classifier-free guidance; 1 is none, Wan uses 5."""
    fps: float | None = None
    """Frame rate to generate at; None takes the rate of training (8 where that was native)."""
    max_tokens: int = 32_768
    """Most tokens of one video; more is refused. Memory grows with it: some 150 kB a token at width 1152, summed
    over a block's activations with guidance, not measured."""
    draft_strength: float = 0.7
    """Noise level that an enlarged draft is brought to before it is finished at full size, (0, 1]."""
    prompts_per_pack: int = 16
    """Prompts of one shape that run together."""
    threads: int = 1
    """torch threads per worker."""
    device: str = dataclasses.field(default="cpu", metadata=CHANGED_ONLY)
    """cpu, cuda or cuda:N; the models of all workers lie there. Noise is drawn on the CPU and is the same anywhere."""
    precision: str = dataclasses.field(default="float32", metadata=CHANGED_ONLY)
    """float32, or bfloat16: autocast of the transformer. Attention on CUDA is in bfloat16 either way."""
    credentials: CredentialsConfig = CredentialsConfig()
    """As whom the files are signed."""
    policy: PromptPolicy = PromptPolicy()
    """Which prompts are refused."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.guidance < 0 or self.prompts_per_pack < 1 or (self.fps is not None and self.fps <= 0):
            raise ValueError("steps and prompts_per_pack >= 1, guidance >= 0 and fps > 0 are needed")
        if self.max_tokens < 1 or not 0 < self.draft_strength <= 1:
            raise ValueError("max_tokens >= 1 and draft_strength in (0, 1] are needed")
        check_name(self.device)
        check_precision(self.precision)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DitConfig:
    """The transformer and its training."""

    model: ModelConfig = ModelConfig()
    plan: PlanConfig = PlanConfig()
    draw: DrawConfig = DrawConfig()
    flow: FlowConfig = FlowConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    validation: ValidationConfig = ValidationConfig()
    watch: WatchConfig = dataclasses.field(default=WatchConfig(), metadata={"digest": False})
    start_from: str = dataclasses.field(default="", metadata=CHANGED_ONLY)
    """Folder of a dit checkpoint (under the root, or anywhere) whose average weights training begins with: another
    stage of training, with other noise levels, sizes, tasks or clips. Its model and autoencoder must be this run's."""
    manifest: str = ""
    """Digest of the manifest that this run expects, or how it begins; empty takes the current one."""
    where: str = ""
    """SQL condition over the manifest's columns, such as `width > height`; empty takes every row."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """Everything from clip files to samples."""

    shape: ShapeConfig = ShapeConfig()
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    latents: LatentConfig = LatentConfig()
    dit: DitConfig = DitConfig()
    launch: LaunchConfig = LaunchConfig()
    sampling: SamplingConfig = SamplingConfig()

    def __post_init__(self) -> None:
        if self.shape.max_tokens > self.dit.plan.budget:
            raise ValueError(
                f"shape.max_tokens ({self.shape.max_tokens}) is over dit.plan.budget ({self.dit.plan.budget}): "
                "a sample must fit a pack"
            )
        for name, weight in self.dit.draw.weights().items():
            needs = TASKS[name].needs
            if weight > 0 and needs and not getattr(self.latents, needs):
                raise ValueError(f"task `{name}` is trained on views of clips: set latents.{needs} to 2 or more")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderSettings:
    """What the stage `autoencoder` depends on."""

    autoencoder: AutoencoderConfig
    shape: ShapeConfig


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LatentSettings:
    """What the stage `latents` depends on."""

    latents: LatentConfig
    shape: ShapeConfig


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DitSettings:
    """What the stage `dit` depends on."""

    dit: DitConfig
    shape: ShapeConfig
    launch: LaunchConfig = dataclasses.field(default=LaunchConfig(), metadata={"digest": False})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SampleSettings:
    """What the stage `samples` depends on."""

    sampling: SamplingConfig
