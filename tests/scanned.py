"""One file through the decode pass and the boundary decision, without a root: all tables of both stages."""

from pathlib import Path

import pyarrow as pa

from pipelines.scan.scan import ScanConfig, scan
from pipelines.shots.stage import OUTPUTS, ShotsConfig, find_shots, items
from pipelines.video.probe import ProbeConfig, probe
from schemas.videos import VIDEOS


def scan_and_cut(path: Path, config: ScanConfig | None = None, shots: ShotsConfig | None = None) -> dict[str, pa.Table]:
    """`scans`, `signals`, `frames`, `shots`, `clips` and `boundaries` of one file; empty tables if it has no frames."""
    video = probe(str(path.parent), path.name, 1, ProbeConfig())
    tables = scan(video, config or ScanConfig())
    found = items(VIDEOS.from_rows([video]), tables["signals"], tables["frames"])
    cut = find_shots(found[0], shots or ShotsConfig(), "test") if found else {t.name: t.empty() for t in OUTPUTS}
    return tables | cut
