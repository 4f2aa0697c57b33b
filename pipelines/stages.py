"""All stages of this package, in the order in which they may run."""

from pipelines.clip.embed import CAPTION_SCORES_STAGE, EMBEDDINGS_STAGE
from pipelines.clip.model import CLIP_MODEL_STAGE
from pipelines.clip_files import CLIP_FILES_STAGE
from pipelines.dedup.fingerprints import FINGERPRINTS_STAGE
from pipelines.dedup.stage import DUPLICATES_STAGE
from pipelines.execute import Stage
from pipelines.ingest import VIDEOS_STAGE
from pipelines.manifest.stage import MANIFEST_STAGE
from pipelines.ocr import OCR_STAGE
from pipelines.policy.verdicts import VERDICTS_STAGE
from pipelines.scan.stage import SCAN_STAGE
from pipelines.shots.stage import SHOTS_STAGE
from pipelines.signal_scores import SIGNAL_SCORES_STAGE
from pipelines.synthetic.stages import STAGES as SYNTHETIC_STAGES

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
