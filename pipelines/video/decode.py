"""The one pass: every frame of a source, once, in display order, with its exact time and its damage.

`decode_frames` yields frames as libav gives them; nothing is kept, so memory does not grow with length.
A packet that does not decode is not the end: its error is written down and decoding goes on.  Damage runs
from the bad packet to the next key frame, because what lies between refers to it; libav conceals such
errors and only says so in its log, which is therefore read too.  The container's reader is one packet ahead of
the decoder, so that what it says of a packet's end is known before the packet is decoded.  Frames inside
damage are yielded and marked, so that indices and times stay right.

Time: a frame without a time stamp gets the one after its predecessor; one that runs backwards is pushed
forward by one tick.  AVI stores no presentation times (libav's guesses jump about where there are B-frames),
so its frames come at the pace of its packets.  Cost: libav's decoding with one thread, plus about 20 us of
Python per frame.
"""

import dataclasses
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av

from pipelines.video.probe import ProbeConfig, demuxer_trouble, too_large
from pipelines.video.source import NotFootage, is_image, listening, open_container, prepare, video_stream

_MAX_DEMUX_ERRORS = 50
_HARMLESS = ("co located POCs", "mmco:", "Application provided invalid", "Frame num change", "unknown SEI")
NO_PRESENTATION_TIMES = ("avi",)
PICTURE_ERRORS = (av.error.FFmpegError, ValueError)


@dataclasses.dataclass(slots=True)
class Frame:
    """One decoded frame and where it stands."""

    index: int
    pts: int
    duration: int
    is_damaged: bool
    picture: Any
    """The `av.VideoFrame`; valid until the next one is asked for."""


@dataclasses.dataclass(slots=True)
class Pass:
    """What a pass learnt beside its frames; complete when the iterator is exhausted."""

    num_frames: int = 0
    time_base: Fraction = Fraction(1, 1)
    damaged: list[tuple[int, int | None]] = dataclasses.field(default_factory=list)
    """Spans `[start, end)` in PTS; None for `to the end`."""
    reason: str = ""
    """First complaint."""
    stopped: str = ""
    """Why the pass ended early; empty if it did not."""
    passes: int = 0

    def complain(self, text: str) -> None:
        self.reason = self.reason or text

    def open_damage(self, pts: int) -> None:
        if self.damaged and self.damaged[-1][1] is not None and pts <= self.damaged[-1][1]:
            pts = min(pts, self.damaged.pop()[0])
        if not self.damaged or self.damaged[-1][1] is not None:
            self.damaged.append((pts, None))

    def close_damage(self, pts: int) -> None:
        if self.damaged and self.damaged[-1][1] is None:
            start = self.damaged[-1][0]
            self.damaged[-1] = (start, max(pts, start))

    def is_damaged(self, pts: int) -> bool:
        """Whether a frame lies in a damaged span; the last few spans are enough, frames come in order."""
        return any(start <= pts and (end is None or pts < end) for start, end in self.damaged[-4:])


def decode_frames(
    folder: str, path: str, limits: ProbeConfig, deadline_s: float, outcome: Pass, *, from_pts: int | None = None
) -> Iterator[Frame]:
    """Decode the first video stream.

    Args:
        deadline_s: Time for the whole file, s; then the pass stops and says so in `outcome.stopped`.
        outcome: Filled in as frames come.
        from_pts: Seek to the key frame before this time first; indices then count from there.
    """
    deadline = time.monotonic() + deadline_s
    with listening() as log:
        try:
            with open_container(folder, path, limits.deadline_s) as container:
                stream = video_stream(container, is_image(container))
                if stream is None or stream.codec_context is None:
                    outcome.stopped = "no video stream that has a decoder"
                    return
                prepare(stream, limits.max_pixels)
                outcome.time_base = stream.time_base or Fraction(1, 1)
                outcome.passes += from_pts is None
                if from_pts is not None:
                    container.seek(from_pts, stream=stream, backward=True)
                yield from _frames(container, stream, limits, deadline, outcome, log)
                trouble = demuxer_trouble(log, container.format.name)
                if trouble:
                    outcome.complain(f"container: {trouble}")
        except (*PICTURE_ERRORS, OSError, NotFootage) as e:
            outcome.stopped = f"{getattr(e, 'strerror', None) or type(e).__name__}"


def _frames(
    container: Any, stream: Any, limits: ProbeConfig, deadline: float, outcome: Pass, log: list[Any]
) -> Iterator[Frame]:
    usual = usual_duration(stream)
    clock = Clock(usual, container.format.name in NO_PRESENTATION_TIMES)
    decoder = Decoder(stream, container.format.name, outcome, log, usual)
    for packet, complaint in packets(container, stream, outcome, log):
        if time.monotonic() > deadline:
            outcome.stopped = "deadline"
            return
        for picture in decoder.decode(packet, complaint):
            if reason := too_large(picture.width, picture.height, limits):
                outcome.stopped = reason
                return
            pts, duration = clock.next(picture)
            if picture.is_corrupt:
                outcome.complain("the decoder marked a frame as corrupt")
                outcome.open_damage(pts)
            yield Frame(outcome.num_frames, pts, duration, outcome.is_damaged(pts), picture)
            outcome.num_frames += 1


def packets(container: Any, stream: Any, outcome: Pass, log: list[Any]) -> Iterator[tuple[Any, str]]:
    """Packets, each with what the container's reader said while it looked for the next one.

    Reading goes on after an error; the last packet is empty and flushes the decoder.
    """
    name, held = container.format.name, None
    for _ in range(_MAX_DEMUX_ERRORS):
        try:
            for packet in container.demux(stream):
                if held is not None:
                    yield held, _said(log, name)
                held = packet
                if not packet.size:
                    break
            break
        except av.error.EOFError:
            break
        except av.error.FFmpegError as e:
            outcome.complain(f"container: {e.strerror}")
    if held is not None:
        yield held, _said(log, name)


def _said(log: list[Any], name: str) -> str:
    """First complaint of one speaker in the log, which is emptied of all that this speaker said."""
    words = [text.strip() for _, who, text in log if who == name and not text.startswith(_HARMLESS)]
    log[:] = [entry for entry in log if entry[1] != name]
    return words[0] if words else ""


class Decoder:
    """Decodes packets and writes down which spans they damage."""

    def __init__(self, stream: Any, container: str, outcome: Pass, log: list[Any], usual: int) -> None:
        self.outcome, self._log, self._usual = outcome, log, usual
        self._context = stream.codec_context
        self._name = self._context.name
        self._by_packets = container in NO_PRESENTATION_TIMES
        self._after_loss = False
        _said(log, container)  # what it said of the header is no damage of a packet

    def decode(self, packet: Any, complaint: str) -> list[Any]:
        """The packet's pictures."""
        error = "the packet is marked as corrupt" if packet.size and packet.is_corrupt else ""
        lost = bool(error)
        try:
            pictures = packet.decode()
        except PICTURE_ERRORS as e:
            pictures = []
            if packet.size or not isinstance(e, av.error.EOFError):
                error = f"{self._name}: {getattr(e, 'strerror', None) or type(e).__name__}"
        if said := _said(self._log, self._name):
            error = f"{self._name}: {said}"
        if complaint and packet.size:
            error = error or f"container: {complaint}"
        pts = packet.dts if packet.pts is None or self._by_packets else packet.pts
        if error:
            self.outcome.complain(error)
            if pts is not None:
                self.outcome.open_damage(pts)
        elif packet.size and packet.is_keyframe and pts is not None and not self._after_loss:
            late = int(self._context.reorder_depth) * self._usual if self._by_packets else 0
            self.outcome.close_damage(pts + late)
        self._after_loss = lost  # a transport stream marks the packet before the one that lost its tail
        if len(self._log) > 1000:  # a fuzzed file says the same thing thousands of times
            del self._log[10:]
        return pictures


def usual_duration(stream: Any) -> int:
    rate, base = stream.average_rate or stream.guessed_rate, stream.time_base
    return max(1, round(1 / (rate * base))) if rate and base else 1


class Clock:
    """Gives every frame a time stamp that is later than the one before it."""

    def __init__(self, usual: int, by_packets: bool = False) -> None:
        self._usual, self._last, self._step = usual, None, usual  # type: int, int | None, int
        self._by_packets = by_packets

    def next(self, picture: Any) -> tuple[int, int]:
        pts = picture.dts if self._by_packets and picture.dts is not None else picture.pts
        if pts is None:
            pts = 0 if self._last is None else self._last + self._step
        if self._last is not None and pts <= self._last:
            pts = self._last + 1
        self._step = picture.duration or self._usual
        self._last = pts
        return pts, self._step
