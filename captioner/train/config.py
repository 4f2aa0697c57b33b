"""How large our captioner is and how it learns.  No torch here, so that reading a config costs nothing."""

import dataclasses

from captioner.frames import FrameSpec


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Size of the captioner."""

    width: int = 96
    """Width of tower and LM; a multiple of 2 * heads."""
    stem: tuple[int, ...] = (24, 40)
    """Channels of the stem's first layer and of its other two, multiples of 8 (GroupNorm divides them)."""
    glimpse: tuple[int, ...] = (32, 48)
    """Channels of the closer look at each subject, multiples of 8."""
    glimpse_side: int = 24
    """Samples along a side of the closer look; a multiple of 4."""
    glimpse_reach: float = 0.75
    """Half its extent, in halves of the short side; the world's subjects have radii of 0.34 to 0.54."""
    time_cells: int = 4
    """Moments that are looked at, every other frame; at least 2, as things are done first and last."""
    free_slots: int = 4
    """Slots without a head, for what no closed field says."""
    layers: int = 2
    """Llama layers."""
    heads: int = 4
    """Attention heads of tower and LM."""
    vocabulary: int = 512
    """Largest BPE vocabulary, at least 260 (256 bytes and 4 control tokens)."""
    sure: float = 0.0
    """Least belief in its value, [0, 1), for a field to be told to the LM; what is unsure is left unsaid, which costs
    recall instead of precision. Wants a training with `unsaid`. 0 tells everything."""
    max_text_tokens: int = 160
    """Longest caption in training, tokens; pairs with a longer one are left out and counted."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.width % (2 * self.heads):
            raise ValueError(f"width must be a multiple of 2 * heads, got {self.width} and {self.heads} heads")
        for name in ("stem", "glimpse"):
            channels = getattr(self, name)
            if len(channels) != 2 or min(channels) < 1 or any(c % 8 for c in channels):
                raise ValueError(f"{name} is two multiples of 8, got {channels}")
        if self.glimpse_side % 4 or self.glimpse_side < 4 or self.glimpse_reach <= 0:
            raise ValueError("glimpse_side is a multiple of 4, glimpse_reach positive")
        if min(self.layers, self.max_text_tokens) < 1 or self.free_slots < 0 or self.time_cells < 2:
            raise ValueError("layers and max_text_tokens are at least 1, time_cells 2, free_slots at least 0")
        if not 0 <= self.sure < 1:
            raise ValueError(f"sure must be in [0, 1), got {self.sure}")
        if self.vocabulary < 260:
            raise ValueError(f"vocabulary must be at least 260, got {self.vocabulary}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """How a pretrained video-language model is fine-tuned."""

    rank: int = 64
    """Rank of each adapter, at least 1."""
    alpha: int = 64
    """Scale of each adapter over its rank."""
    dropout: float = 0.0
    """Dropout before each adapter, [0, 1)."""
    seed: int = 0
    """Seed of the adapters and of every draw."""
    steps: int = 1000
    """Optimiser steps."""
    batch_size: int = 64
    """Clips per step; they go through one at a time."""
    learning_rate: float = 1e-4
    """Peak of AdamW's rate; published full fine-tunings use 1e-5 to 2e-5, LoRA ten times that."""
    warmup_steps: int = 30
    """Steps of linear warmup."""
    weight_decay: float = 0.0
    """AdamW's."""
    max_norm: float = 1.0
    """Gradients are clipped to this norm."""
    short_share: float = 0.3
    """Share of short captions in a batch, [0, 1]; the others are dense."""
    look_every: int = 100
    """Steps between two looks at held-out pairs."""
    look_pairs: int = 32
    """Held-out pairs that are looked at, spread over all; both of their captions are read."""
    patience: int = 0
    """Looks without a lower held-out loss after which training ends with the best adapter; 0 trains to the end."""
    threads: int = 2
    """Threads of torch on CPU."""
    snapshot_s: float = 60.0
    """Seconds between two snapshots to resume from; does not change the weights."""

    def __post_init__(self) -> None:
        if min(self.rank, self.alpha, self.steps, self.batch_size, self.threads) < 1 or self.warmup_steps < 0:
            raise ValueError("rank, alpha, steps, batch_size and threads are at least 1, warmup_steps at least 0")
        if self.learning_rate <= 0 or self.max_norm <= 0 or min(self.weight_decay, self.snapshot_s) < 0:
            raise ValueError("learning_rate and max_norm are positive, weight_decay and snapshot_s at least 0")
        if min(self.look_every, self.look_pairs) < 1 or self.patience < 0:
            raise ValueError("look_every and look_pairs are at least 1, patience at least 0")
        if not 0 <= self.dropout < 1 or not 0 <= self.short_share <= 1:
            raise ValueError("dropout must be in [0, 1) and short_share in [0, 1]")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How our captioner is trained; defaults from the trials in facts/captioner.md 6.4."""

    seed: int = 0
    """Seed of the weights and of every draw."""
    steps: int = 900
    """Optimiser steps."""
    batch_size: int = 32
    """Clips per step, all of one shape."""
    learning_rate: float = 2e-3
    """Peak of AdamW's (0.9, 0.98) rate, reached after the warmup; then a cosine to 0."""
    warmup_steps: int = 50
    """Steps of linear warmup."""
    weight_decay: float = 0.05
    """AdamW's."""
    max_norm: float = 1.0
    """Gradients are clipped to this norm."""
    spoken: int = 12
    """Clips of a batch whose captions are learned from, [1, batch_size]; the LM costs more a clip than it needs."""
    short_share: float = 0.3
    """Share of short captions among them, [0, 1]; the others are dense."""
    unsaid: float = 0.3
    """Share of those captions of which a few claims, drawn anew each time, are neither told to the LM nor said, [0, 1]:
    so it learns to leave out what `model.sure` withholds."""
    fine_tune: bool = False
    """Whether the base model is fine-tuned twice, on short and on dense captions, each with weights of its own, as
    DALL-E 3's captioner was; otherwise one model writes both, told by a control token."""
    fine_tune_steps: int = 150
    """Optimiser steps of each of the two, without the contrastive loss."""
    fine_tune_rate: float = 5e-4
    """Peak of their learning rate."""
    look_every: int = 50
    """Steps between two looks at held-out pairs."""
    patience: int = 0
    """Looks without a lower held-out caption loss after which training (each of its stages) ends with the best weights;
    0 trains to the end and keeps the last ones."""
    threads: int = 2
    """Threads of torch; another number may change the last bits of the weights."""
    snapshot_s: float = 20.0
    """Seconds between two snapshots to resume from; does not change the weights."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    frames: FrameSpec = dataclasses.field(default_factory=FrameSpec)

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.threads) < 1 or self.warmup_steps < 0 or self.snapshot_s < 0:
            raise ValueError("steps, batch_size and threads are at least 1, warmup_steps and snapshot_s at least 0")
        if min(self.learning_rate, self.fine_tune_rate, self.max_norm) <= 0 or self.weight_decay < 0:
            raise ValueError("learning rates and max_norm are positive, weight_decay at least 0")
        if min(self.fine_tune_steps, self.look_every) < 1 or self.patience < 0:
            raise ValueError("fine_tune_steps and look_every are at least 1, patience at least 0")
        if not 0 <= self.short_share <= 1 or not 0 <= self.unsaid <= 1:
            raise ValueError(f"short_share and unsaid must be in [0, 1], got {self.short_share} and {self.unsaid}")
        if self.model.sure and not self.unsaid:
            raise ValueError("model.sure wants unsaid over 0: else the LM never learns to do without a field")
        if self.frames.area == 0 or self.frames.multiple % 8:
            raise ValueError("the stem needs an area, and sides that are multiples of 8")
        if not 1 <= self.spoken <= self.batch_size:
            raise ValueError(f"spoken must be in [1, batch_size], got {self.spoken} of {self.batch_size}")
        if self.frames.num_frames != 2 * self.model.time_cells:
            raise ValueError(
                f"num_frames is 2 * time_cells, got {self.frames.num_frames} and {self.model.time_cells} cells"
            )
