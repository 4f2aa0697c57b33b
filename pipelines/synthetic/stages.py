"""The stages of the world of known truth."""

from pipelines.execute import Stage
from pipelines.synthetic.footage import FOOTAGE
from pipelines.synthetic.measure import EVALUATION_STAGE
from pipelines.synthetic.pairs import PAIRS_STAGE
from pipelines.synthetic.prompts import PROMPTS_STAGE

STAGES: tuple[Stage, ...] = (FOOTAGE, PAIRS_STAGE, PROMPTS_STAGE, EVALUATION_STAGE)
