"""The manifest: an immutable, versioned table of clips to train on.

Each freeze writes `<root>/manifests/<digest>/part-00000.parquet` and then `_manifest.json`; the table
`manifest` holds the newest one's rows, so that both plain globs read rightly.
"""

import dataclasses

from schemas.captions import Fields
from schemas.table import Table, column


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """One clip to train on, with everything an auditor asks of it."""

    clip_id: str = column("The clip.")
    manifest: str = column("Digest of the snapshot this row belongs to.")
    video_id: str = column("The video it was cut from.")
    batch: str = column("The batch of footage its video came in.")
    source: str = column("Source file, folder and all.")
    start_s: float = column("Start in the source.", unit="s")
    end_s: float = column("End (exclusive) in the source.", unit="s")
    path: str = column("Clip file, relative to the root.")
    width: int = column("Width.", unit="pixel")
    height: int = column("Height.", unit="pixel")
    fps: float = column("Frame rate.", unit="frame/s")
    num_frames: int = column("Frames.")
    short: str = column("Short caption.")
    dense: str = column("Dense caption.")
    fields: Fields = column("The caption as a record.")
    caption_model: str = column("Digest of the captioner's weights.")
    scores: str = column("All scores of the clip, as JSON `{table.column: value}`.")
    weight: float = column("Sampling weight by the size of its group of like clips, mean 1.", range="(0, inf)")
    licence: str = column("Rights statement of the source; empty if none was given.")
    policy: str = column("Digest of the policy that chose it.")
    human: str = column("Text that came with the source, in its own words; empty if none did.", default="")


MANIFEST = Table("manifest", ManifestRow, ("clip_id",), partitioned=False, doc="The newest frozen manifest.")
