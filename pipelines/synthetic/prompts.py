"""Stage `prompts`: what the video model is asked for, with the truth to judge it by.

One subject per prompt, because the probe that judges the videos looks for one.  Colours and backgrounds take
turns, so that each attribute is asked for equally often; nothing is asked to stand still before a still
camera.  The text is a dense caption, in the wording the model was trained on.
"""

import dataclasses

import numpy as np

from pipelines.execute import Context, Output, Stage
from pipelines.synthetic.world import BACKGROUNDS, CAMERAS, COLORS, MOTIONS, SHAPES, SIZES, generator
from schemas.captions import Fields, Subject
from schemas.language import render_dense
from schemas.samples import PROMPTS, Prompt

SHAPES_PX = ((64, 64), (80, 48), (48, 80))
"""Width and height of what is generated: multiples of 16 (autoencoder 8, patch 2) with an area of about 64 x 64."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PromptsConfig:
    """What to ask for."""

    seed: int = 0
    """Seed of the prompts, and of the noise they start from."""
    count: int = 64
    """Prompts."""
    num_frames: int = 9
    """Frames of each video: 4 k + 1, for a causal autoencoder that halves time twice."""
    camera_static: float = 0.6
    """Share of prompts with a static camera, [0, 1]."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"prompts: count is at least 1, got {self.count}")
        if self.num_frames % 4 != 1:
            raise ValueError(f"prompts: num_frames is 4 k + 1, got {self.num_frames}")
        if not 0 <= self.camera_static <= 1:
            raise ValueError(f"prompts: camera_static lies in [0, 1], got {self.camera_static}")


def make_prompt(config: PromptsConfig, index: int) -> Prompt:
    """Prompt number `index`."""
    rng = generator("prompt", config.seed, index)
    camera = "static" if rng.random() < config.camera_static else _pick(rng, CAMERAS[1:])
    motions = tuple(MOTIONS)[1:] if camera == "static" else tuple(MOTIONS)
    colors, backgrounds = tuple(COLORS), tuple(BACKGROUNDS)
    subject = Subject(
        shape=_pick(rng, SHAPES),
        color=colors[index % len(colors)],
        size=_pick(rng, tuple(SIZES)),
        motion=_pick(rng, motions),
    )
    background = backgrounds[(index // len(colors) + index) % len(backgrounds)]
    fields = Fields(subjects=[subject], events=[], camera=camera, background=background)
    width, height = SHAPES_PX[index % len(SHAPES_PX)]
    return Prompt(
        prompt_id=f"prompt-{index:04d}",
        prompt=render_dense(fields, int(rng.integers(4))),
        fields=fields,
        width=width,
        height=height,
        num_frames=config.num_frames,
        seed=config.seed + index,
    )


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def run(context: Context) -> Output:
    """All prompts."""
    config: PromptsConfig = context.settings
    rows = [make_prompt(config, i) for i in range(config.count)]
    return Output(tables={PROMPTS.name: PROMPTS.from_rows(rows)}, metrics={"prompts": len(rows)})


PROMPTS_STAGE = Stage(
    name="prompts",
    version=1,
    reads=(),
    writes=(PROMPTS,),
    run=run,
    settings=lambda c: c.synthetic.prompts,
    doc="Asks for single subjects whose every attribute is known.",
)
