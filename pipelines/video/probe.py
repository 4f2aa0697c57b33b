"""What a source file is: its container, its stream, its shape as shown, and its name by content.

One read of the packets gives the exact number of packets, the true length (headers lie) and the
`video_id`: SHA-256 over the packets of the first video stream, which survives renames, re-muxing and new
tags (after data-juicer's `video_deduplicator`).  One picture is decoded, because rotation is a property
of frames.  Cost: reading the file once, about 1/60 of decoding it.

Not decided here: whether the frames decode (`scan` does), and whether a file repeats another (`videos`).
"""

import dataclasses
import hashlib
import os
import time
from fractions import Fraction
from typing import Any

import av

from pipelines.video.color import transfer_of
from pipelines.video.source import (
    NotFootage,
    choose_stream,
    is_image,
    is_url,
    join,
    listening,
    open_bytes,
    open_container,
    prepare,
    state,
)
from schemas.ids import ID_DIGITS
from schemas.videos import Video, VideoStatus

_SQUARE_WITHIN = Fraction(1, 100)
_MAX_SAR = 8
_MAX_DEMUX_ERRORS = 20
GRACE_S = 30.0
"""What a worker gets beyond the deadlines that its item keeps itself, before it is killed, s."""
_TOP_FIRST, _BOTTOM_FIRST = (2, 5), (3, 4)  # libav's AVFieldOrder, by the field that is shown first
_ANIMATIONS = ("gif", "apng")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConfig:
    """Limits of reading a file's container."""

    deadline_s: float = 60.0
    """Time for one file, s, beside the time that its size needs; a file that takes longer is unreadable."""
    read_bytes_per_s: float = 20e6
    """Slowest storage that is waited for, byte/s."""
    max_side: int = 8192
    """Largest width or height, pixel."""
    max_pixels: int = 40_000_000
    """Largest picture, pixel; one frame in RGB is three times that in bytes."""

    def __post_init__(self) -> None:
        if min(self.deadline_s, self.read_bytes_per_s, self.max_side, self.max_pixels) <= 0:
            raise ValueError("deadline_s, read_bytes_per_s, max_side and max_pixels must be positive")


def reading_s(config: ProbeConfig, size_bytes: int) -> float:
    """Time for reading a file of that size once."""
    return config.deadline_s + size_bytes / config.read_bytes_per_s


class SourceChanged(Exception):
    """The file is not the one that was listed or probed."""


@dataclasses.dataclass(slots=True)
class _Packets:
    """What reading every packet of a stream gives."""

    sha: Any = dataclasses.field(default_factory=hashlib.sha256)
    count: int = 0
    shown: int = 0
    first_pts: int | None = None
    end_pts: int | None = None
    trouble: str = ""
    late: bool = False
    frame: Any = None

    def take(self, packet: Any) -> None:
        self.sha.update(bytes(packet))
        self.count += 1
        pts = packet.pts if packet.pts is not None else packet.dts
        if packet.is_discard:  # before the edit list's start: decoded, never shown
            return
        self.shown += 1
        if pts is not None:
            self.first_pts = pts if self.first_pts is None else min(self.first_pts, pts)
            end = pts + (packet.duration or 0)
            self.end_pts = end if self.end_pts is None else max(self.end_pts, end)


def probe(folder: str, path: str, size_bytes: int, config: ProbeConfig) -> Video:
    """Describe one file; never raises for what the file holds."""
    base = Video(path=path, folder=folder, video_id="", status=VideoStatus.OK, size_bytes=size_bytes)
    with listening() as log:
        try:
            row = _probe(base, config, log)
        except NotFootage as e:
            row = _bad(base, VideoStatus.UNREADABLE, str(e))
        except (av.error.FFmpegError, OSError, ValueError) as e:
            row = _bad(base, VideoStatus.UNREADABLE, _words(e, log))
    return row


def _probe(base: Video, config: ProbeConfig, log: list[Any]) -> Video:
    limit_s = reading_s(config, base.size_bytes)
    deadline = time.monotonic() + limit_s
    with open_container(base.folder, base.path, config.deadline_s) as container:
        image = is_image(container)
        base = dataclasses.replace(
            base, container=container.format.name, has_audio=bool(container.streams.audio), is_image=image
        )
        stream, why = choose_stream(container, image)
        if stream is None:
            return _bad(base, VideoStatus.NO_VIDEO, "the container holds no video stream")
        if stream.codec_context is None:
            return _bad(base, VideoStatus.UNREADABLE, "no decoder for its codec")
        base = dataclasses.replace(base, codec=stream.codec_context.codec.canonical_name)
        base = dataclasses.replace(base, stream_index=stream.index, stream_reason=why)
        if reason := too_large(stream.codec_context.width, stream.codec_context.height, config):
            return _bad(base, VideoStatus.UNREADABLE, reason)
        packets = _read_packets(container, stream, config, deadline)
        return _describe(base, stream, packets, config, log)


def check_same(video: Video, before: tuple[int, str], config: ProbeConfig) -> None:
    """After reading a source: it is still what was probed.

    Args:
        before: The file's `state` before it was read.

    Raises:
        SourceChanged: If its size or time changed and so did its packets.
    """
    if is_url(video.folder) or (before[0] == video.size_bytes and before == state(video.folder, video.path)):
        return
    if probe(video.folder, video.path, video.size_bytes, config).video_id != video.video_id:
        raise SourceChanged("the file is not what was probed; run stage `videos` again")


def too_large(width: int, height: int, config: ProbeConfig) -> str:
    """Why a picture of that size is refused; empty if it is not."""
    if max(width, height) > config.max_side or width * height > config.max_pixels:
        return f"picture of {width}x{height} is larger than the limit"
    return ""


def _read_packets(container: Any, stream: Any, config: ProbeConfig, deadline: float) -> _Packets:
    """Hash every packet; decode until the first picture comes."""
    prepare(stream, config.max_pixels)
    found, errors = _Packets(), 0
    while errors < _MAX_DEMUX_ERRORS:
        try:
            for packet in container.demux(stream):
                if time.monotonic() > deadline:
                    found.late = True
                    return found
                if found.frame is None:
                    found.frame = _first_frame(packet)
                if packet.size:
                    found.take(packet)
            return found
        except av.error.EOFError:
            return found
        except av.error.FFmpegError as e:
            errors += 1
            found.trouble = found.trouble or str(e)
    return found


def _first_frame(packet: Any) -> Any:
    try:
        return next(iter(packet.decode()), None)
    except av.error.FFmpegError:
        return None  # `scan` says which packets do not decode


def _describe(base: Video, stream: Any, packets: _Packets, config: ProbeConfig, log: list[Any]) -> Video:
    frame, context = packets.frame, stream.codec_context
    coded_width, coded_height = (frame.width, frame.height) if frame else (context.width, context.height)
    sar = clean_sar(stream.sample_aspect_ratio or context.sample_aspect_ratio)
    rotation = quarter_turn(frame.rotation) if frame is not None else 0
    width, height = display_size(coded_width, coded_height, sar, rotation)
    time_base = stream.time_base or Fraction(0, 1)
    duration_s = 0.0
    if packets.first_pts is not None and packets.end_pts is not None:
        duration_s = float((packets.end_pts - packets.first_pts) * time_base)
    rate = packets.shown / duration_s if duration_s > 0 and packets.shown > 1 else float(stream.average_rate or 0)
    row = dataclasses.replace(
        base,
        pix_fmt=frame.format.name if frame else context.pix_fmt or "",
        color_transfer=transfer_of(frame),
        field_order=_field_order(context, frame),
        coded_width=coded_width,
        coded_height=coded_height,
        width=width,
        height=height,
        rotation=rotation,
        sar_num=sar.numerator,
        sar_den=sar.denominator,
        time_base_num=time_base.numerator,
        time_base_den=time_base.denominator,
        fps=round(rate, 6),
        duration_s=round(duration_s, 6),
        num_packets=packets.count,
    )
    if packets.late:
        return _bad(
            row, VideoStatus.UNREADABLE, f"reading it took longer than {reading_s(config, row.size_bytes):.0f} s"
        )
    if not packets.count:
        return _bad(row, VideoStatus.UNREADABLE, _last_words(log) or packets.trouble or "it holds no packet")
    is_image = row.is_image or (row.container in _ANIMATIONS and packets.count == 1)
    row = dataclasses.replace(row, video_id=packets.sha.hexdigest()[:ID_DIGITS], is_image=is_image)
    if reason := too_large(coded_width, coded_height, config):
        return dataclasses.replace(row, status=VideoStatus.UNREADABLE, reason=reason)
    if frame is None and row.is_image:
        return dataclasses.replace(row, status=VideoStatus.UNREADABLE, reason=_last_words(log) or "no picture decodes")
    trouble = packets.trouble or demuxer_trouble(log, row.container)
    if trouble:
        return dataclasses.replace(row, status=VideoStatus.DAMAGED, reason=f"container: {trouble}")
    if row.is_image:
        return dataclasses.replace(row, reason="still image")
    return row


def demuxer_trouble(log: list[Any], container: str) -> str:
    """The demuxer's own complaint, such as a file that ends too early."""
    words = [text.strip() for _, name, text in log if name == container]
    return words[0] if words else ""


def clean_sar(sar: Fraction | None) -> Fraction:
    """Sample aspect ratio, 1 where it is absent, absurd, or within 1 % of square (an encoder's rounding)."""
    if not sar or sar <= 0 or not Fraction(1, _MAX_SAR) <= sar <= _MAX_SAR or abs(sar - 1) <= _SQUARE_WITHIN:
        return Fraction(1)
    return Fraction(sar)


def quarter_turn(counter_clockwise: int) -> int:
    """Clockwise turn for display: 0, 90, 180 or 270; 0 where the matrix is no quarter turn."""
    if abs(counter_clockwise) > 360:  # a garbage matrix gives INT_MIN
        return 0
    turn = -counter_clockwise % 360
    return turn if turn in (0, 90, 180, 270) else 0


def display_size(coded_width: int, coded_height: int, sar: Fraction, rotation: int) -> tuple[int, int]:
    """Size as shown with square pixels; the longer way is stretched, so that no detail is lost."""
    width, height = coded_width, coded_height
    if sar > 1:
        width = round(coded_width * sar)
    elif sar < 1:
        height = round(coded_height / sar)
    return (height, width) if rotation in (90, 270) else (width, height)


def _field_order(context: Any, frame: Any) -> str:
    """Which field comes first: of frames that are interlaced, or of a stream that says so."""
    order = int(context.field_order)
    if order in _BOTTOM_FIRST:
        return "bottom"
    return "top" if order in _TOP_FIRST or (frame is not None and frame.interlaced_frame) else ""


def _bad(row: Video, status: VideoStatus, reason: str) -> Video:
    return dataclasses.replace(row, video_id=_hash_file(row.folder, row.path), status=status, reason=reason)


def _hash_file(folder: str, path: str) -> str:
    sha = hashlib.sha256()
    try:
        if not is_url(folder) and not os.path.isfile(join(folder, path)):
            raise FileNotFoundError(path)  # a pipe would be read for ever
        with open_bytes(folder, path) as f:
            while block := f.read(1 << 20):
                sha.update(block)
    except OSError:
        sha.update(path.encode())  # a file that cannot be read is named by its path
    return sha.hexdigest()[:ID_DIGITS]


def _words(error: Exception, log: list[Any]) -> str:
    """A reason without the machine's paths, so that equal files give equal rows anywhere."""
    plain = getattr(error, "strerror", None) or type(error).__name__
    last = _last_words(log)
    return f"{plain}: {last}" if last else str(plain)


def _last_words(log: list[Any]) -> str:
    return str(log[-1][2]).strip() if log else ""
