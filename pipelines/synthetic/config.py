"""Config of the world of known truth, composed of those of its parts."""

import dataclasses

from pipelines.synthetic.edit import FootageConfig
from pipelines.synthetic.evaluate import EvaluationConfig
from pipelines.synthetic.pairs import PairsConfig
from pipelines.synthetic.prompts import PromptsConfig
from pipelines.synthetic.world import WorldConfig


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticConfig:
    """Everything that is rendered, asked for and measured."""

    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    """How often what is seen."""
    footage: FootageConfig = dataclasses.field(default_factory=FootageConfig)
    """Edited videos with planted defects."""
    pairs: PairsConfig = dataclasses.field(default_factory=PairsConfig)
    """(clip, captions) pairs to learn from."""
    prompts: PromptsConfig = dataclasses.field(default_factory=PromptsConfig)
    """What the video model is asked for."""
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    """Tolerances of what is measured."""
