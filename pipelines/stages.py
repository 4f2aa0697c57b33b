"""All stages of this package, in the order in which they may run."""

from pipelines.clip_files import CLIP_FILES_STAGE
from pipelines.clip_model import CLIP_MODEL_STAGE
from pipelines.dedup import DUPLICATES_STAGE
from pipelines.embed import CAPTION_SCORES_STAGE, EMBEDDINGS_STAGE
from pipelines.execute import Stage
from pipelines.fingerprints import FINGERPRINTS_STAGE
from pipelines.ingest import VIDEOS_STAGE
from pipelines.manifest import MANIFEST_STAGE
from pipelines.ocr import OCR_STAGE
from pipelines.scan_stage import SCAN_STAGE
from pipelines.shots_stage import SHOTS_STAGE
from pipelines.signal_scores import SIGNAL_SCORES_STAGE
from pipelines.synthetic.stages import STAGES as SYNTHETIC_STAGES
from pipelines.verdicts import VERDICTS_STAGE

STAGES: tuple[Stage, ...] = (
    *SYNTHETIC_STAGES,
    CLIP_MODEL_STAGE,
    VIDEOS_STAGE,
    SCAN_STAGE,
    SHOTS_STAGE,
    SIGNAL_SCORES_STAGE,
    OCR_STAGE,
    EMBEDDINGS_STAGE,
    FINGERPRINTS_STAGE,
    DUPLICATES_STAGE,
    VERDICTS_STAGE,
    CLIP_FILES_STAGE,
    CAPTION_SCORES_STAGE,
    MANIFEST_STAGE,
)
