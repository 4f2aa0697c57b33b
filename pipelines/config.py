"""Config of curation: one small config per stage, and the synthetic world's."""

import dataclasses

from pipelines.clip.model import ClipConfig
from pipelines.clip.scores import EmbedConfig
from pipelines.dedup.stage import DedupConfig
from pipelines.manifest.stage import ManifestConfig
from pipelines.ocr import OcrConfig
from pipelines.policy.rules import PolicyConfig
from pipelines.scan.scan import ScanConfig
from pipelines.shots.stage import ShotsConfig
from pipelines.synthetic.config import SyntheticConfig
from pipelines.video.cut import CutConfig
from pipelines.video.probe import ProbeConfig


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CurationConfig:
    """Everything that raw footage goes through on its way to a manifest."""

    synthetic: SyntheticConfig = dataclasses.field(default_factory=SyntheticConfig)
    """The world of known truth."""
    probe: ProbeConfig = dataclasses.field(default_factory=ProbeConfig)
    """Reading containers."""
    scan: ScanConfig = dataclasses.field(default_factory=ScanConfig)
    """The one decode pass."""
    shots: ShotsConfig = dataclasses.field(default_factory=ShotsConfig)
    """Boundaries to clips, without decoding."""
    clip: ClipConfig = dataclasses.field(default_factory=ClipConfig)
    """The CLIP in use."""
    embed: EmbedConfig = dataclasses.field(default_factory=EmbedConfig)
    """What CLIP is shown and asked."""
    ocr: OcrConfig = dataclasses.field(default_factory=OcrConfig)
    """Who reads what is written in clips."""
    duplicates: DedupConfig = dataclasses.field(default_factory=DedupConfig)
    """Near-duplicates."""
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)
    """Which rules decide."""
    cut: CutConfig = dataclasses.field(default_factory=CutConfig)
    """Clip files."""
    manifest: ManifestConfig = dataclasses.field(default_factory=ManifestConfig)
    """The frozen snapshot."""
