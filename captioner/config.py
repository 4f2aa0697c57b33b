"""Everything about captioning that can be set, composed from the configs beside the code they steer."""

import dataclasses

from captioner.backends.base import BACKEND_NAMES, ApiConfig, Decoding, VlmConfig
from captioner.expand.config import ExpandConfig
from captioner.frames import FrameSpec
from captioner.pairs.config import PairSources
from captioner.prompt import CURRENT
from captioner.train.config import LoraConfig, TrainConfig
from captioner.verify import VerifyConfig

METHODS = ("scratch", "lora")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CaptionerConfig:
    """How clips are captioned, and how our captioner is trained."""

    backend: str = "recaptioner"
    """Who writes: recaptioner (trained here), transformers_vlm, openai_api or fake."""
    batch_size: int = 32
    """Clips of one shape that are captioned together, [1, 1024]."""
    prompt_version: str = CURRENT
    """Which prompt a general model gets (captioner/prompt.py); our own model is told by a control token."""
    require_fields: bool | None = None
    """Whether a caption must parse into fields to be ok; null: only from models trained here, whose language it is."""
    retries: int = 2
    """Further tries for a caption that is cut short, loops or does not parse; each changes something.  [0, 3]."""
    language: str = "en"
    """ISO 639-1 code of the language that captions in free prose must be in; empty for any."""
    decoding: Decoding = dataclasses.field(default_factory=Decoding)
    verify: VerifyConfig = dataclasses.field(default_factory=VerifyConfig)
    pairs: PairSources = dataclasses.field(default_factory=PairSources)
    """Which (clip, captions) pairs it learns from."""
    expand: ExpandConfig = dataclasses.field(default_factory=ExpandConfig)
    """How short prompts become dense captions."""
    method: str = "scratch"
    """What stage `captioner_model` trains: scratch (our own small model) or lora (an adapter of `vlm`)."""
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)
    frames: FrameSpec = dataclasses.field(default_factory=lambda: FrameSpec(num_frames=16, area=0, multiple=1))
    """What a general model sees; ours sees `train.frames`, which its checkpoint remembers."""
    vlm: VlmConfig = dataclasses.field(default_factory=VlmConfig)
    api: ApiConfig = dataclasses.field(default_factory=ApiConfig)

    def __post_init__(self) -> None:
        if self.backend not in BACKEND_NAMES:
            raise ValueError(f"backend is one of {', '.join(BACKEND_NAMES)}, got `{self.backend}`")
        if self.method not in METHODS:
            raise ValueError(f"method is one of {', '.join(METHODS)}, got `{self.method}`")
        if not 1 <= self.batch_size <= 1024:
            raise ValueError(f"batch_size must be in [1, 1024], got {self.batch_size}")
        if not 0 <= self.retries <= 3:
            raise ValueError(f"retries must be in [0, 3], got {self.retries}")

    def training(self) -> "TrainConfig | Tuning":
        """The part that the trained weights depend on."""
        if self.method == "scratch":
            return self.train
        vlm = dataclasses.replace(self.vlm, adapter="")
        return Tuning(lora=self.lora, vlm=vlm, frames=self.frames, prompt_version=self.prompt_version)

    def captioning(self) -> "Captioning":
        """The part that captions depend on: settings of backends that are not used are left out."""
        return Captioning(
            backend=self.backend,
            batch_size=self.batch_size,
            prompt_version=self.prompt_version,
            require_fields=self.backend in ("recaptioner", "fake")
            if self.require_fields is None
            else self.require_fields,
            retries=self.retries,
            language=self.language,
            decoding=self.decoding,
            frames=self.train.frames if self.backend == "recaptioner" else self.frames,
            vlm=self.vlm if self.backend == "transformers_vlm" else None,
            api=self.api if self.backend == "openai_api" else None,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What fine-tuning needs of `CaptionerConfig` (see there)."""

    lora: LoraConfig
    vlm: VlmConfig
    frames: FrameSpec
    prompt_version: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Captioning:
    """What the stage `captions` needs of `CaptionerConfig` (see there)."""

    backend: str
    batch_size: int
    prompt_version: str
    require_fields: bool
    retries: int
    language: str
    decoding: Decoding
    frames: FrameSpec
    vlm: VlmConfig | None
    api: ApiConfig | None
