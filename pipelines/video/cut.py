"""Cutting a kept clip to its own file: frame for frame, cropped, upright, with square pixels.

PyAV decodes the span (from the key frame before it) and hands raw frames with their own time stamps to
ffmpeg as NUT, so that the frames are the very ones the scan counted, whatever the file's seek tables,
edit lists or variable frame rate say; ffmpeg crops, turns, scales and encodes with libx264.  Raw frames do
not say what their numbers mean, so that is handed over beside them: full range becomes limited, RGB becomes
BT.709, HDR is tone-mapped (`pipelines.video.color`), two fields become one frame (bwdif), and the file names
its matrix.  The result is opened and counted.  Where seeking does not give the expected number of frames,
the file is decoded from its start and frames are taken by index.  Cost: decoding the span and encoding it, once.

The ffmpeg is `$DAILIES_FFMPEG`, or the one on PATH, or the wheel's own.
"""

import dataclasses
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import Any

import av

from pipelines.video.color import HDR, cube_text, transfer_of
from pipelines.video.decode import Frame, Pass, decode_frames
from pipelines.video.probe import ProbeConfig
from schemas.clips import Clip
from schemas.videos import Video


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CutConfig:
    """How clip files are encoded."""

    crf: int = 18
    """x264 quality, 0-51; 18 is visually lossless."""
    preset: str = "veryfast"
    """x264 preset."""
    deadline_s: float = 600.0
    """Time for one clip, s."""

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51 or self.deadline_s <= 0:
            raise ValueError("crf lies in 0-51, deadline_s must be positive")


@dataclasses.dataclass(frozen=True, slots=True)
class CutFile:
    """What a clip file holds, counted after writing."""

    width: int
    height: int
    num_frames: int
    fps: float
    duration_s: float


_PIPE_BYTES = 1 << 20
"""What goes through the pipe at once: a raw 1080p frame has 3 MB, and 32 kB at a time cost a tenth of the encoding."""


class CutFailed(Exception):
    """The clip could not be cut; the message is the reason."""


_ADDRESS = re.compile(r" @ 0x[0-9a-f]+")  # another one in every run, and rows are to be the same
FIELDS = {"top": "tff", "bottom": "bff"}
"""ffmpeg's word for the field that comes first; the keys are those of `Video.field_order`."""


def ffmpeg_exe() -> str:
    """The ffmpeg to use."""
    import imageio_ffmpeg

    return os.environ.get("DAILIES_FFMPEG") or shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()


Filter = tuple[str, dict[str, Any]]
_FULL_RANGE, _UNKNOWN, _BT709 = 2, 2, 1


@dataclasses.dataclass(frozen=True, slots=True)
class Coding:
    """What the numbers of decoded frames mean; libav's own numbers, 2 for unknown."""

    is_rgb: bool
    is_full_range: bool
    matrix: int
    transfer: int
    primaries: int
    hdr: str = ""
    """Name of the HDR transfer, if it is one."""


def coding(picture: Any) -> Coding:
    """Coding of a decoded frame."""
    transfer = transfer_of(picture)
    return Coding(
        is_rgb=picture.format.is_rgb,
        is_full_range=picture.format.name.startswith("yuvj") or int(picture.color_range) == _FULL_RANGE,
        matrix=int(picture.colorspace) or _UNKNOWN,  # 0 is RGB's own
        transfer=int(picture.color_trc),
        primaries=int(picture.color_primaries),
        hdr=transfer if transfer in HDR else "",
    )


def color_filters(source: Coding, cube: str) -> tuple[list[Filter], Coding]:
    """Filters to 8-bit limited-range YUV, and what the result's numbers mean.

    Args:
        cube: Path of the table that maps HDR; used where the source is.
    """
    says = {"range": "pc" if source.is_full_range else "tv", "colorspace": source.matrix}
    made = dataclasses.replace(source, is_rgb=False, is_full_range=False)
    to_709 = ("scale", {"out_color_matrix": "bt709", "out_range": "limited"})
    if source.hdr:
        lut = [("format", {"pix_fmts": "gbrp10le"}), ("lut3d", {"file": cube})]
        return [("setparams", says), *lut, to_709], Coding(False, False, _BT709, _BT709, _BT709)
    if source.is_rgb:
        return [to_709], Coding(False, False, _BT709, _BT709, _BT709)
    if source.is_full_range:
        return [("setparams", says), ("scale", {"in_range": "full", "out_range": "limited"})], made
    return [("setparams", says)], made


def filters(video: Video, clip: Clip) -> list[Filter]:
    """ffmpeg's video filters: frames instead of fields, upright, square pixels, crop, even size."""
    chain: list[Filter] = []
    if video.field_order in FIELDS:
        chain.append(("setfield", {"mode": FIELDS[video.field_order]}))
        chain.append(("bwdif", {"mode": "send_frame", "deint": "all"}))
    turns = {90: ("transpose", {"dir": "clock"}), 270: ("transpose", {"dir": "cclock"})}
    if video.rotation in turns:
        chain.append(turns[video.rotation])
    elif video.rotation == 180:
        chain += [("hflip", {}), ("vflip", {})]
    shown_coded = (video.coded_width, video.coded_height)
    if video.rotation in (90, 270):
        shown_coded = shown_coded[::-1]
    if shown_coded != (video.width, video.height):
        chain.append(("scale", {"w": video.width, "h": video.height}))
    x, y, width, height = clip.crop or [0, 0, video.width, video.height]
    even = (max(2, width // 2 * 2), max(2, height // 2 * 2))
    if clip.crop or even != (video.width, video.height):
        chain.append(("crop", {"w": even[0], "h": even[1], "x": x, "y": y, "exact": 1}))
    chain.append(("setsar", {"sar": 1}))
    return chain


def cut(video: Video, clip: Clip, out: str, config: CutConfig, limits: ProbeConfig) -> CutFile:
    """Write the clip's file.

    Raises:
        CutFailed: With the reason; no file is left then.
    """
    expected = clip.end_frame - clip.start_frame
    reason = ""
    for by_index in (False, True):
        try:
            written = _encode(video, clip, out, config, limits, by_index)
            made = count_frames(out) if written == expected else None
            if made is not None and made.num_frames == expected:
                return made
            reason = f"expected {expected} frames, got {written if made is None else made.num_frames}"
        except (OSError, av.error.FFmpegError, CutFailed) as e:
            reason = str(e)
        if os.path.exists(out):
            os.unlink(out)
    raise CutFailed(reason)


def _span(video: Video, clip: Clip, limits: ProbeConfig, deadline_s: float, by_index: bool) -> Iterator[Frame]:
    """The clip's frames; by time after a seek, or by index from the file's start."""
    seek = None if by_index or clip.start_frame == 0 else clip.start_pts
    outcome = Pass()
    for frame in decode_frames(video.folder, video.path, limits, deadline_s, outcome, from_pts=seek):
        place = frame.index if seek is None else frame.pts
        start, end = (clip.start_frame, clip.end_frame) if seek is None else (clip.start_pts, clip.end_pts)
        if place >= end:
            return
        if place >= start:
            yield frame
    if outcome.stopped:
        raise CutFailed(f"decoding stopped: {outcome.stopped}")


def _encode(video: Video, clip: Clip, out: str, config: CutConfig, limits: ProbeConfig, by_index: bool) -> int:
    """Pipe the span through ffmpeg; returns how many frames went in."""
    frames = _span(video, clip, limits, config.deadline_s, by_index)
    first = next(frames, None)
    if first is None:
        return 0
    with tempfile.TemporaryDirectory() as folder, open(os.path.join(folder, "said"), "w+b") as said:
        process = _start(_command(video, clip, out, config, coding(first.picture), folder), said)
        try:
            written = _feed(process.stdin, chain([first], frames), video, clip)
        except (BrokenPipeError, av.error.FFmpegError):  # ffmpeg went away, or a frame could not be handed over
            written = -1
        finally:
            if process.stdin and not process.stdin.closed:
                try:
                    process.stdin.close()
                except BrokenPipeError:
                    written = -1
            code = process.wait()
        if code or written < 0:
            said.seek(0)
            words = said.read().decode("utf-8", "replace").strip().splitlines()
            last = _ADDRESS.sub("", words[-1])[:300] if words else "no message"
            raise CutFailed(f"ffmpeg ended with {code}: {last}")
    return written


def _command(video: Video, clip: Clip, out: str, config: CutConfig, source: Coding, folder: str) -> Any:
    import ffmpeg

    cube = os.path.join(folder, "hdr.cube")
    if source.hdr:
        with open(cube, "w") as f:
            f.write(cube_text(source.hdr))
    colors, made = color_filters(source, cube)
    stream = ffmpeg.input("pipe:", format="nut", blocksize=_PIPE_BYTES)
    for name, options in [*colors, *filters(video, clip)]:
        stream = stream.filter(name, **options)
    return stream.output(
        out,
        vcodec="libx264",
        crf=config.crf,
        preset=config.preset,
        pix_fmt="yuv420p",
        color_range="tv",
        colorspace=made.matrix,
        color_trc=made.transfer,
        color_primaries=made.primaries,
        fps_mode="passthrough",
        enc_time_base="demux",
        threads=1,
        movflags="+faststart",
        format="mp4",
        an=None,
    ).global_args("-loglevel", "error", "-nostdin")


def _start(command: Any, said: Any) -> Any:
    import subprocess

    wide: dict[str, Any] = {"pipesize": _PIPE_BYTES} if sys.platform == "linux" else {}
    return subprocess.Popen(
        command.compile(cmd=ffmpeg_exe(), overwrite_output=True),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=said,
        **wide,
    )


def _feed(pipe: Any, frames: Iterator[Frame], video: Video, clip: Clip) -> int:
    """Write raw frames with their times, counted from the clip's start."""
    written, stream, time_base = 0, None, Fraction(clip.time_base_num, clip.time_base_den)
    shape: tuple[int, int, str] | None = None
    with av.open(pipe, "w", format="nut", buffer_size=_PIPE_BYTES) as container:
        for frame in frames:
            picture = frame.picture
            if shape is None or stream is None:
                # the source's size, which the clip's was made from: a frame may have another one
                shape = (video.coded_width, video.coded_height, _raw_format(picture.format))
                stream = container.add_stream("rawvideo", rate=max(1, round(clip.fps)))
                stream.width, stream.height, stream.pix_fmt = shape
                stream.codec_context.time_base = stream.time_base = time_base
            if (picture.width, picture.height, picture.format.name) != shape:
                picture = picture.reformat(width=shape[0], height=shape[1], format=shape[2])
            picture.pts, picture.time_base = frame.pts - clip.start_pts, time_base
            container.mux(stream.encode(picture))
            written += 1
    return written


def _raw_format(format: Any) -> str:
    """A pixel format that NUT can carry and that means the same numbers."""
    if format.is_rgb:
        return "rgb24"
    if format.name.startswith(("yuv4", "yuvj4", "gray")):
        return str(format.name)
    return "yuv420p10le" if format.components[0].bits > 8 else "yuv420p"


def count_frames(path: str) -> CutFile:
    """Open a written clip and count its packets; each is one frame."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        times = sorted((p.pts or 0, p.duration or 0) for p in container.demux(stream) if p.size)
        base = stream.time_base or Fraction(1)
        context = stream.codec_context
        length = float((times[-1][0] + times[-1][1] - times[0][0]) * base) if times else 0.0
        rate = len(times) / length if length else 0.0
        return CutFile(context.width, context.height, len(times), round(rate, 6), round(length, 6))
