"""Samples: videos that the model made, from prompts; and what was measured on them."""

import dataclasses

from schemas.captions import Fields
from schemas.table import Table, column


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What to generate."""

    prompt_id: str = column("Name of the prompt.")
    prompt: str = column("The text.")
    fields: Fields | None = column("What the text asks for, where that is known; null for users' own prompts.")
    width: int = column("Width to generate.", unit="pixel")
    height: int = column("Height to generate.", unit="pixel")
    num_frames: int = column("Frames to generate.")
    seed: int = column("Seed of the noise.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A generated video."""

    prompt_id: str = column("The prompt.")
    path: str = column("mp4, relative to the root; empty if it failed.")
    status: str = column("ok or failed.")
    reason: str = column("Why it failed.", default="")
    prompt: str = column("The text.")
    width: int = column("Width.", unit="pixel")
    height: int = column("Height.", unit="pixel")
    num_frames: int = column("Frames.")
    fps: float = column("Frame rate.", unit="frame/s")
    seed: int = column("Seed of the noise.")
    task: str = column("text_to_video, ...")
    checkpoint: str = column("Digest of the DiT's weights.")
    autoencoder: str = column("Digest of the autoencoder's weights.")
    manifest: str = column("Digest of the manifest the DiT was trained on.")
    sampling: str = column("Solver, steps, guidance, as JSON.")
    made_by: str = column("Digest of code version, config and models.", default="")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One measured rate with its 95 % interval (Wilson), or a plain number (then n is 0)."""

    group: str = column(
        "What was measured: boundaries, policy, captions, generated, control (prompts shuffled), training; of prompts "
        "whose combination of attributes no training clip shows unseen_<level> and control_unseen_<level>, of the "
        "others seen_<level> and control_seen_<level>; levels subject (color, shape, motion), on_background and whole "
        "(and camera)."
    )
    name: str = column("Which one: hard, blur, color, ...")
    metric: str = column("precision, recall, f1, accuracy, loss_first, ...")
    value: float | None = column("The value; null if there was nothing to measure.")
    low: float | None = column("Lower end of the 95 % interval.")
    high: float | None = column("Upper end of the 95 % interval.")
    n: int = column("Trials behind it.")
    chance: float | None = column("What guessing would give; null if not defined.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One attribute of one generated video: what was asked for, and what the probe saw."""

    prompt_id: str = column("The prompt.")
    name: str = column("The attribute: color, shape, motion, background or camera.")
    asked: str = column("What was asked for.")
    found: str = column("What the probe saw; empty if it could not tell.")
    right: bool = column("They are the same.")
    clips_subject: int | None = column(
        "Training clips that show the prompt's colour, shape and motion on one subject; 0: an unseen combination; "
        "null: not known.",
        default=None,
    )
    clips_on_background: int | None = column("Those that show it on the prompt's background.", default=None)
    clips_whole: int | None = column("Those that show it there under the prompt's camera.", default=None)


PROMPTS = Table("prompts", Prompt, ("prompt_id",), partitioned=False, doc="What to generate.")
SAMPLES = Table("samples", Sample, ("prompt_id",), partitioned=False, doc="Videos the model made.")
EVALUATION = Table(
    "evaluation", Measure, ("group", "name", "metric"), partitioned=False, doc="Measured rates with intervals."
)
JUDGEMENTS = Table(
    "judgements", Judgement, ("prompt_id", "name"), partitioned=False, doc="Generated videos, attribute by attribute."
)
