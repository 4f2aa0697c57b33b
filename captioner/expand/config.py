"""How short prompts become dense captions.  No torch here, so that reading a config costs nothing."""

import dataclasses

from captioner.backends.base import ApiConfig

WRITERS = ("trained", "retrieval", "transformers", "openai_api")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LmTraining:
    """The small text model and its training; defaults for a few hundred captions and half a minute of one CPU core."""

    seed: int = 0
    """Seed of the weights and of every draw."""
    steps: int = 300
    """Optimiser steps."""
    batch_size: int = 16
    """(Prompt, caption) pairs per step."""
    learning_rate: float = 3e-3
    """Peak of AdamW's rate; linear warmup, then a cosine to 0."""
    warmup_steps: int = 30
    """Steps of linear warmup."""
    width: int = 96
    """Width of the model; a multiple of 2 * heads."""
    layers: int = 2
    """Llama layers."""
    heads: int = 4
    """Attention heads."""
    vocabulary: int = 400
    """Largest BPE vocabulary, at least 260."""
    max_tokens: int = 224
    """Longest prompt and caption together, tokens; longer ones are left out and counted."""
    held_out: float = 0.1
    """Share of captions that are kept from training, to measure on."""
    recombined: float = 0.6
    """Share of captions whose values are swapped for those of other captions, in prompt and caption alike, so that
    copying is learned and not which values went together."""
    threads: int = 1
    """Threads of torch; another number may change the last bits of the weights."""
    snapshot_s: float = 20.0
    """Seconds between two snapshots to resume from; does not change the weights."""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.layers, self.threads, self.max_tokens) < 1 or self.warmup_steps < 0:
            raise ValueError("steps, batch_size, layers, threads, max_tokens are at least 1, warmup_steps at least 0")
        if self.width < 1 or self.width % (2 * self.heads) or self.vocabulary < 260:
            raise ValueError("width is a multiple of 2 * heads, vocabulary at least 260")
        if not 0 <= self.held_out < 1 or not 0 <= self.recombined <= 1 or self.learning_rate <= 0:
            raise ValueError("held_out lies in [0, 1), recombined in [0, 1], learning_rate is positive")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExpandConfig:
    """Who expands prompts, and how often it may try."""

    writer: str = "trained"
    """trained (the small text model), retrieval (a caption of the manifest, rewritten), transformers or openai_api."""
    candidates: int = 8
    """Texts that are drawn; the first that keeps every fact of the prompt is taken."""
    temperature: float = 1.0
    """Of the draw; 1 keeps the captions' own frequencies."""
    max_tokens: int = 160
    """Longest expansion, tokens; a draft that does not end by then is none."""
    examples: int = 6
    """(Short, dense) captions of the manifest that an LLM is shown, seeded by the prompt."""
    model: str = "Qwen/Qwen3-4B-Instruct-2507"
    """LLM of transformers: name on the hub, or a local folder."""
    revision: str = "main"
    """Its revision on the hub."""
    dtype: str = "auto"
    """auto, float32, bfloat16 or float16."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda, ..."""
    api: ApiConfig = dataclasses.field(default_factory=ApiConfig)
    """An OpenAI-compatible server."""
    lm: LmTraining = dataclasses.field(default_factory=LmTraining)
    """The small text model's training."""

    def __post_init__(self) -> None:
        if self.writer not in WRITERS:
            raise ValueError(f"writer is one of {', '.join(WRITERS)}, got `{self.writer}`")
        if not 1 <= self.candidates <= 64 or self.max_tokens < 1 or self.examples < 0:
            raise ValueError("candidates lies in [1, 64], max_tokens is at least 1, examples at least 0")
        if not 0 < self.temperature <= 2:
            raise ValueError(f"temperature lies in (0, 2], got {self.temperature}")
