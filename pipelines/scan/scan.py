"""Scan: one decode pass over a source gives its signals, the evidence for its boundaries, and proxy frames.

Everything that needs every frame happens here, and nowhere else; the promise `decode_passes == 1` is a
column.  A file that ends early, hangs, or is damaged keeps what was decoded, with the reason.
`scan_parts.py` does the same for a long video in parts that many workers share; the rows are equal.
Cost: see benchmarks/curation.py.  Memory grows by about 0.5 kB per frame and 8 kB per proxy, never by a frame.
"""

import dataclasses
from typing import Any

import pyarrow as pa

from pipelines.scan.one_pass import Gatherer
from pipelines.shots.boundaries import Times, as_bytes
from pipelines.shots.detect import CutConfig, cut_evidence
from pipelines.shots.flash import FlashConfig, flash_evidence
from pipelines.shots.gradual import GradualConfig, dissolve_evidence
from pipelines.shots.letterbox import EdgeConfig
from pipelines.shots.signals import SignalCurves
from pipelines.video.decode import Pass, decode_frames
from pipelines.video.probe import ProbeConfig
from schemas.videos import FRAMES, SCANS, SIGNALS, Scan, Signals, Video, VideoStatus

OUTPUTS = (SCANS, SIGNALS, FRAMES)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScanConfig:
    """The one pass."""

    deadline_s: float = 900.0
    """Time for each `part_s` of a source, s; what was decoded until then is used.  4K at 60 fps needs most of it."""
    part_s: float = 180.0
    """A video of more than one and a half times this length is decoded in parts of about it, s; the rows are equal."""
    proxy_fps: float = 4.0
    """Proxy frames per second; the first and the last frame, and those on both sides of a cut, always have one."""
    proxy_short_side: int = 144
    """Largest short side of a proxy, pixel."""
    proxy_area: int = 256 * 144
    """Largest area of a proxy, pixel."""
    proxy_quality: int = 85
    """JPEG quality, 1-95."""
    limits: ProbeConfig = ProbeConfig()
    """Limits on pictures and reads."""
    cuts: CutConfig = CutConfig()
    """Hard cuts."""
    gradual: GradualConfig = GradualConfig()
    """Dissolves."""
    flash: FlashConfig = FlashConfig()
    """Flashes."""
    edges: EdgeConfig = EdgeConfig()
    """What is black at the edges of a picture."""

    def __post_init__(self) -> None:
        if (
            min(self.deadline_s, self.part_s) <= 0
            or not 0.01 <= self.proxy_fps <= 1000
            or not 1 <= self.proxy_quality <= 95
        ):
            raise ValueError("deadline_s and part_s must be positive, proxy_fps in 0.01-1000, proxy_quality in 1-95")


def scanning_s(video: Video, config: ScanConfig) -> float:
    """The most time that scanning a source in one go may take; absurd lengths count a second a packet."""
    return config.deadline_s * max(1.0, min(video.duration_s, float(video.num_packets)) / config.part_s)


def scan(video: Video, config: ScanConfig) -> dict[str, pa.Table]:
    """All rows of one video; never raises for what the file holds."""
    if video.status in (VideoStatus.UNREADABLE, VideoStatus.NO_VIDEO) or video.is_image:
        return scan_rows(scan_row(video, video.status, video.reason, 0, 0, []))
    outcome = Pass()
    gathered = _decode(video, config, outcome)
    row = _ended(video, outcome)
    if gathered is None:
        return scan_rows(row)
    curves = gathered.meter.curves()
    times = Times(curves.pts, gathered.end_pts, outcome.time_base)
    signals = signals_row(video, curves, times, gathered.damaged, config)
    return scan_rows(row, [signals], gathered.proxies)


def scan_rows(row: Scan, signals: list[Any] | None = None, frames: list[Any] | None = None) -> dict[str, pa.Table]:
    """The three tables of one video."""
    return {t.name: t.from_rows(rows) for t, rows in zip(OUTPUTS, ([row], signals or [], frames or []))}


def failed_scan(video: Video, reason: str) -> dict[str, pa.Table]:
    """Rows of a video whose scan raised or killed its worker."""
    return scan_rows(scan_row(video, VideoStatus.UNREADABLE, reason, 0, 0, []))


def scan_row(video: Video, status: str, reason: str, frames: int, passes: int, damaged: list[str]) -> Scan:
    return Scan(
        video_id=video.video_id,
        status=str(status),
        reason=reason,
        num_frames=frames,
        decode_passes=passes,
        damaged=damaged,
    )


def _decode(video: Video, config: ScanConfig, outcome: Pass) -> Gatherer | None:
    """Run the pass; None if no frame came."""
    gatherer: Gatherer | None = None
    for frame in decode_frames(video.folder, video.path, config.limits, scanning_s(video, config), outcome):
        if gatherer is None:
            gatherer = Gatherer(video, config, outcome.time_base, frame.picture)
        gatherer.add(frame)
    if gatherer is not None:
        gatherer.finish()
    return gatherer


def _ended(video: Video, outcome: Pass) -> Scan:
    """Status and reason after the pass."""
    base = outcome.time_base
    spans = [
        f"{float(s * base):.3f}-{'end' if e is None else format(float(e * base), '.3f')}" for s, e in outcome.damaged
    ]
    reason = outcome.stopped or outcome.reason or (video.reason if video.status == VideoStatus.DAMAGED else "")
    if not outcome.num_frames:
        status = VideoStatus.UNREADABLE
        reason = reason or "no frame decodes"
    else:
        status = VideoStatus.DAMAGED if reason or spans else VideoStatus.OK
    return scan_row(video, status, reason, outcome.num_frames, min(outcome.passes, 1), spans)


def signals_row(video: Video, curves: SignalCurves, times: Times, damaged: list[bool], config: ScanConfig) -> Signals:
    """The full-rate curves; those of boundaries are measured here, because they need every thumbnail."""
    boundary = cut_evidence(curves.change, curves.thumbs, config.cuts)
    gradual = dissolve_evidence(curves, times.fps, config.gradual)
    flash = flash_evidence(curves.thumbs, curves.pts * float(times.time_base), config.flash)
    return Signals(
        video_id=video.video_id,
        pts=curves.pts.tolist(),
        luma=curves.luma.tolist(),
        contrast=curves.contrast.tolist(),
        saturation=curves.saturation.tolist(),
        sharpness=curves.sharpness.tolist(),
        difference=curves.difference.tolist(),
        boundary=as_bytes(boundary).tolist(),
        gradual=as_bytes(gradual).tolist(),
        flash=as_bytes(flash).tolist(),
        damaged=damaged,
        end_pts=times.end,
        time_base_num=times.time_base.numerator,
        time_base_den=times.time_base.denominator,
    )
