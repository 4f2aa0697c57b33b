"""One part of a long video: the frames from one key frame to another, the very ones that the one pass would give.

A part begins at the first key frame at or after its nominal time and ends where the next part begins, so that both
find the same seam without an index.  It goes on for a few frames past the seam: those need the frames before
(change, cuts), and they prove that the next part, which starts cold, decodes the same pictures.
Frames that are shown before the part's key frame but come after it (an open group of pictures) belong to the part
before.

A part takes no risk: a packet without a time, times that run backwards, an error, damage, a demuxer that
complains make it unfit, and then the whole file is decoded in one go.  Cost: a seek, packets up to the key frame
(read, not decoded), and the few frames after the seam.
"""

import dataclasses
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from pipelines.video.decode import (
    NO_PRESENTATION_TIMES,
    PICTURE_ERRORS,
    Clock,
    Decoder,
    Frame,
    Pass,
    packets,
    usual_duration,
)
from pipelines.video.probe import ProbeConfig, demuxer_trouble, too_large
from pipelines.video.source import NotFootage, is_image, listening, open_container, prepare, video_stream


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Which part of a video, by nominal times."""

    index: int
    count: int
    length_s: float
    overlap: int = 4
    """Frames after the seam."""

    def bounds(self, stream: Any) -> tuple[int | None, int | None]:
        """Nominal start and end in the stream's time base; None for the file's own."""
        ticks, origin = Fraction(self.length_s) / stream.time_base, stream.start_time or 0
        start = origin + round(self.index * ticks) if self.index else None
        return start, origin + round((self.index + 1) * ticks) if self.index + 1 < self.count else None


@dataclasses.dataclass(slots=True)
class PartPass(Pass):
    """What decoding a part learnt beside its frames."""

    start_pts: int | None = None
    """Its key frame; None for the first part, and for one that lies past the last key frame."""
    seam_pts: int | None = None
    """The next part's key frame; None if the file ended first."""

    @property
    def unfit(self) -> str:
        """Why the part cannot be used; empty if it can."""
        return self.stopped or self.reason or ("damaged" if self.damaged else "")


def decode_part(
    folder: str, path: str, limits: ProbeConfig, deadline_s: float, part: Part, outcome: PartPass
) -> Iterator[Frame]:
    """Decode the part's frames and a few beyond its seam; indices count from the part's first."""
    deadline = time.monotonic() + deadline_s
    with listening() as log:
        try:
            with open_container(folder, path, limits.deadline_s) as container:
                stream = video_stream(container, is_image(container))
                if stream is None or stream.codec_context is None or not stream.time_base:
                    outcome.stopped = "no video stream that has a decoder"
                    return
                if container.format.name in NO_PRESENTATION_TIMES:
                    outcome.stopped = "the container stores no presentation times"
                    return
                prepare(stream, limits.max_pixels)
                outcome.time_base = stream.time_base
                start, end = part.bounds(stream)
                if start is not None:
                    container.seek(start, stream=stream, backward=True)
                usual = usual_duration(stream)
                decoder = Decoder(stream, container.format.name, outcome, log, usual)
                fed = _fed(packets(container, stream, outcome, log), start, end, outcome)
                yield from _frames(fed, decoder, Clock(usual), limits, deadline, part.overlap, outcome)
                if trouble := demuxer_trouble(log, container.format.name):
                    outcome.complain(f"container: {trouble}")
        except (*PICTURE_ERRORS, OSError, NotFootage) as e:
            outcome.stopped = f"{getattr(e, 'strerror', None) or type(e).__name__}"


def _fed(
    every: Iterator[tuple[Any, str]], start: int | None, end: int | None, outcome: PartPass
) -> Iterator[tuple[Any, str]]:
    """The packets from the part's key frame on; notes the seam when it passes by."""
    begun = start is None
    for packet, complaint in every:
        if packet.size and packet.pts is None:
            outcome.complain("a packet has no time")
            return
        if packet.size and packet.is_keyframe:
            if start is not None and not begun and packet.pts >= start:
                begun, outcome.start_pts = True, packet.pts
            if begun and end is not None and outcome.seam_pts is None and packet.pts >= end:
                outcome.seam_pts = packet.pts
                if outcome.start_pts == packet.pts:  # one group of pictures spans more than a part: nothing is ours
                    return
        if begun:
            yield packet, complaint


def _frames(
    fed: Iterator[tuple[Any, str]], decoder: Decoder, clock: Clock, limits: ProbeConfig, deadline: float, overlap: int,
    outcome: PartPass,
) -> Iterator[Frame]:  # fmt: skip
    beyond = 0
    for packet, complaint in fed:
        if time.monotonic() > deadline:
            outcome.stopped = "deadline"
            return
        start = outcome.start_pts
        is_before = start is not None and packet.pts is not None and packet.pts < start
        decoder.outcome = Pass() if is_before else outcome  # it refers to frames never read; nobody wants it
        for picture in decoder.decode(packet, complaint):
            if start is not None and picture.pts is not None and picture.pts < start:
                continue  # shown before the key frame: the part before has it
            pts, duration = clock.next(picture)
            if reason := too_large(picture.width, picture.height, limits):
                outcome.stopped = reason
            elif picture.is_corrupt or pts != picture.pts:
                outcome.stopped = "a frame is corrupt, or its time runs backwards"
            if outcome.unfit:
                return
            yield Frame(outcome.num_frames, pts, duration, False, picture)
            outcome.num_frames += 1
            beyond += outcome.seam_pts is not None and pts >= outcome.seam_pts
            if beyond >= overlap:
                return
