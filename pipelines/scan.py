"""Scan: one decode pass over a source gives its signals, the evidence for its boundaries, and proxy frames.

Everything that needs every frame happens here, and nowhere else; the promise `decode_passes == 1` is a
column.  A file that ends early, hangs, or is damaged keeps what was decoded, with the reason.
Cost, measured on seven real files on a busy machine: 1.1 to 1.6 times decoding alone at 720p and above, 1.5
to 2.1 times at 360p to 540p (about 1 ms per frame; the mark of 1.25 is not met there).  Memory grows by
about 0.5 kB per frame and 8 kB per proxy, never by a frame.
"""

import dataclasses
import math
from collections import deque
from fractions import Fraction
from typing import Any

import pyarrow as pa

from pipelines.shots.boundaries import Times, as_bytes
from pipelines.shots.detect import CutConfig, CutDetector, cut_evidence
from pipelines.shots.flash import FlashConfig, flash_evidence
from pipelines.shots.gradual import GradualConfig, dissolve_evidence
from pipelines.shots.letterbox import EdgeConfig, edges
from pipelines.shots.signals import SignalMeter
from pipelines.video.decode import Frame, Pass, decode_frames
from pipelines.video.frames import ProxyMaker, Shrinker, proxy_size
from pipelines.video.probe import ProbeConfig
from schemas.videos import FRAMES, SCANS, SIGNALS, ProxyFrame, Scan, Signals, Video, VideoStatus

OUTPUTS = (SCANS, SIGNALS, FRAMES)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScanConfig:
    """The one pass."""

    deadline_s: float = 120.0
    """Time for one source, s; what was decoded until then is used.  Two hours of 1080p need about an hour."""
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
        if self.deadline_s <= 0 or self.proxy_fps <= 0 or not 1 <= self.proxy_quality <= 95:
            raise ValueError("deadline_s and proxy_fps must be positive, proxy_quality in 1-95")


@dataclasses.dataclass(slots=True)
class _Gathered:
    """What one pass leaves behind."""

    meter: SignalMeter
    detector: CutDetector
    damaged: list[bool] = dataclasses.field(default_factory=list)
    proxies: list[ProxyFrame] = dataclasses.field(default_factory=list)
    end_pts: int = 0


def scan(video: Video, config: ScanConfig) -> dict[str, pa.Table]:
    """All rows of one video; never raises for what the file holds."""
    if video.status in (VideoStatus.UNREADABLE, VideoStatus.NO_VIDEO) or video.is_image:
        return scan_rows(_scan_row(video, video.status, video.reason, 0, 0, []))
    outcome = Pass()
    gathered = _decode(video, config, outcome)
    row = _ended(video, outcome)
    if gathered is None:
        return scan_rows(row)
    signals = _signals(video, gathered, outcome.time_base, config)
    return scan_rows(row, [signals], gathered.proxies)


def scan_rows(row: Scan, signals: list[Any] | None = None, frames: list[Any] | None = None) -> dict[str, pa.Table]:
    """The three tables of one video."""
    return {t.name: t.from_rows(rows) for t, rows in zip(OUTPUTS, ([row], signals or [], frames or []))}


def failed_scan(video: Video, reason: str) -> dict[str, pa.Table]:
    """Rows of a video whose scan raised or killed its worker."""
    return scan_rows(_scan_row(video, VideoStatus.UNREADABLE, reason, 0, 0, []))


def _scan_row(video: Video, status: str, reason: str, frames: int, passes: int, damaged: list[str]) -> Scan:
    return Scan(
        video_id=video.video_id,
        status=str(status),
        reason=reason,
        num_frames=frames,
        decode_passes=passes,
        damaged=damaged,
    )


def _decode(video: Video, config: ScanConfig, outcome: Pass) -> _Gathered | None:
    """Run the pass; None if no frame came."""
    gathered: _Gathered | None = None
    shrinker: Shrinker | None = None
    proxies: _Proxies | None = None
    for frame in decode_frames(video.folder, video.path, config.limits, config.deadline_s, outcome):
        if gathered is None or shrinker is None or proxies is None:
            gathered = _Gathered(SignalMeter(), CutDetector(video.fps, config.cuts))
            shrinker = Shrinker(frame.picture.width, frame.picture.height)
            proxies = _Proxies(video, config, outcome.time_base, gathered)
        small = shrinker.shrink(frame.picture)
        gathered.meter.add(frame.pts, small.luma, small.chroma_blue, small.chroma_red)
        cuts = gathered.detector.add(small)
        gathered.damaged.append(frame.is_damaged)
        gathered.end_pts = frame.pts + frame.duration
        proxies.see(frame, cuts)
    if proxies is not None:
        proxies.finish()
    return gathered


class _Proxies:
    """Chooses the frames that get a proxy: an even grid in time that starts anew at every cut, the first
    and the last frame of the video, and both frames at a cut, so that equal shots have equal proxies.

    A detector speaks a few frames late, so the last few frames are held back; no more than that.
    """

    def __init__(self, video: Video, config: ScanConfig, time_base: Fraction, gathered: _Gathered) -> None:
        size = proxy_size(video.width, video.height, config.proxy_short_side, config.proxy_area)
        self._maker = ProxyMaker(size, video.rotation, config.proxy_quality)
        self._video_id, self._time_base, self._step = video.video_id, time_base, 1 / config.proxy_fps
        self._gathered, self._edges = gathered, config.edges
        self._recent: deque[Frame] = deque(maxlen=config.cuts.window_frames + 2)
        self._done: deque[int] = deque(maxlen=2 * config.cuts.window_frames + 8)
        self._next_s: float | None = None
        self._last_cut_s = -math.inf

    def see(self, frame: Frame, cuts: list[int]) -> None:
        """Take the next frame, and the cuts that the detector just found among the last few."""
        self._recent.append(frame)
        now = self._seconds(frame)
        if self._next_s is None or now >= self._next_s - 1e-9:
            self._add(frame)
            self._next_s = (
                now + self._step if self._next_s is None else max(self._next_s + self._step, now - self._step)
            )
        for cut in cuts:
            first = next((f for f in self._recent if f.index == cut), None)
            if (
                first is None or self._seconds(first) - self._last_cut_s < self._step / 2
            ):  # noise must not fill the disk
                continue
            self._last_cut_s = self._seconds(first)
            self._next_s = self._last_cut_s + self._step
            for near in [f for f in self._recent if f.index in (cut - 1, cut)]:
                self._add(near)

    def finish(self) -> None:
        """The last frame of the video always has a proxy."""
        if self._recent:
            self._add(self._recent[-1])

    def _seconds(self, frame: Frame) -> float:
        return float(frame.pts * self._time_base)

    def _add(self, frame: Frame) -> None:
        if frame.index in self._done:
            return
        self._done.append(frame.index)
        self._gathered.proxies.append(
            ProxyFrame(
                video_id=self._video_id,
                frame_index=frame.index,
                pts=frame.pts,
                time_s=self._seconds(frame),
                width=self._maker.size[0],
                height=self._maker.size[1],
                jpeg=self._maker.jpeg(frame.picture),
                edges=edges(*self._maker.borders(frame.picture), self._edges),
            )
        )


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
    return _scan_row(video, status, reason, outcome.num_frames, min(outcome.passes, 1), spans)


def _signals(video: Video, gathered: _Gathered, time_base: Fraction, config: ScanConfig) -> Signals:
    """The full-rate curves; those of boundaries are measured here, because they need every thumbnail."""
    curves = gathered.meter.curves()
    fps = Times(curves.pts, gathered.end_pts, time_base).fps
    boundary = cut_evidence(gathered.detector.changes(), curves.thumbs, config.cuts)
    gradual = dissolve_evidence(curves, fps, config.gradual)
    flash = flash_evidence(boundary, curves.thumbs, curves.pts * float(time_base), config.flash)
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
        damaged=gathered.damaged,
        end_pts=gathered.end_pts,
        time_base_num=time_base.numerator,
        time_base_den=time_base.denominator,
    )
