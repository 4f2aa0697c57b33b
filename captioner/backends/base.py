"""What a captioner backend is: frames in, text out.

Choosing frames, prompting, parsing, retrying and recording belong to the stage, so that all backends fail
alike and can be compared.  A backend may raise for a whole batch, and gives `Written.error` where one clip alone
failed; the stage makes rows of both.  `fake.py` is the shortest example.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from captioner.prompt import Prompt

BACKEND_NAMES = ("recaptioner", "transformers_vlm", "openai_api", "fake")
STOP, LENGTH = "stop", "length"
TRAINED = "trained"
"""Adapter of stage `captioner_model`, by name."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How text is drawn from a model.  Greedy by default: the same clip gets the same caption."""

    short_tokens: int = 48
    """Budget of a short caption, tokens."""
    dense_tokens: int = 256
    """Budget of a dense caption, tokens."""
    num_beams: int = 1
    """Beams; 1 is greedy."""
    no_repeat_ngram: int = 0
    """Longest run of tokens that may not come twice; 0 allows repeats."""
    temperature: float = 0.0
    """0 takes the likeliest token; above, tokens are drawn with `seed`, [0, 2]."""
    seed: int = 0
    """Seed of what is drawn."""
    constrained: bool = False
    """Ask for a JSON record and let the backend hold the model to its schema, where it can."""

    def __post_init__(self) -> None:
        if min(self.short_tokens, self.dense_tokens, self.num_beams) < 1 or self.no_repeat_ngram < 0:
            raise ValueError("token budgets and num_beams are at least 1, no_repeat_ngram at least 0")
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature must be in [0, 2], got {self.temperature}")

    def tokens(self, kind: str) -> int:
        return self.short_tokens if kind == "short" else self.dense_tokens


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VlmConfig:
    """A video-language model of transformers."""

    model: str = "Qwen/Qwen3-VL-8B-Instruct"
    """Name on the hub, or a local folder."""
    revision: str = "main"
    """Revision on the hub; pin a commit for a run that must repeat."""
    dtype: str = "auto"
    """auto, float32, bfloat16 or float16."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda, cuda:1, ..."""
    adapter: str = ""
    """Folder or hub name of a LoRA adapter; `trained` for the one of stage `captioner_model`; empty for none."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ApiConfig:
    """An OpenAI-compatible server, such as vLLM's."""

    url: str = "http://127.0.0.1:8000/v1"
    """Base address, without `/chat/completions`."""
    model: str = ""
    """Name that the server knows the model by; empty asks the server for its first."""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key, if the server wants one; the key itself is never in a config."""
    timeout_s: float = 120.0
    """Longest wait for one caption, s."""
    tries: int = 5
    """How often one question is sent while the server is away, overloaded (429) or broken (5xx), [1, 20]."""
    backoff_s: float = 0.5
    """Pause after the first failure, s; doubles with each further one up to 30 s, unless the server names a time."""

    def __post_init__(self) -> None:
        if not 1 <= self.tries <= 20 or self.backoff_s < 0:
            raise ValueError("tries must be in [1, 20], backoff_s at least 0")
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url begins with http:// or https://, got `{self.url}`")
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s must be positive, got {self.timeout_s}")


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """What a backend wrote for one clip."""

    text: str
    num_tokens: int
    finish_reason: str
    """stop, or length when the budget ran out."""
    error: str = ""
    """Why there is no text at all (a server away, no memory for even one clip); empty if there is one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    """What a backend sees of one clip."""

    frames: np.ndarray[Any, np.dtype[np.uint8]]
    """(time, height, width, 3) RGB."""
    times_s: tuple[float, ...]
    """Time of each frame from the clip's start."""


class Backend(Protocol):
    """A loaded model."""

    model: str = ""
    """Digest of the weights, or the best name that can be had."""
    adapter: str = ""
    """Digest of the adapter on top of them; empty for none."""
    engine: str = ""
    """What ran it: library, version, device and number type."""
    constrains: bool = False
    """Whether `Decoding.constrained` means anything to it."""
    sees_more: bool = False
    """Whether it takes any number of frames."""

    def write(self, clips: Sequence[Clip], prompt: Prompt, decoding: Decoding) -> list[Written]:
        """One text per clip; all clips have frames of one shape."""
        ...
