"""Source files as they were found (`videos`) and as they decoded (`scans`, `signals`, `frames`)."""

import dataclasses
import enum

import pyarrow as pa

from schemas.table import Table, column


class VideoStatus(enum.StrEnum):
    """How a source file ended."""

    OK = "ok"
    DAMAGED = "damaged"
    """Some frames decode, some do not; the intact spans are used."""
    UNREADABLE = "unreadable"
    """No frame can be had from it."""
    NO_VIDEO = "no_video"
    """The container reads, and holds no video stream."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """One source file, from its container alone (no decoding)."""

    path: str = column("File, relative to `folder`.")
    folder: str = column("Folder (or bucket prefix) that the batch was taken from.")
    video_id: str = column("Hash of the video stream's packets; of the file's bytes where there is no stream.")
    status: str = column("ok, damaged, unreadable or no_video, as far as the container tells.")
    reason: str = column("Why the status is not ok; empty otherwise.", default="")
    duplicate_of: str | None = column("Path of the first file with the same packets, if this is not it.", default=None)
    size_bytes: int = column("File size.", unit="byte", default=0)
    container: str = column("Container format, libav's name.", default="")
    codec: str = column("Video codec, libav's name.", default="")
    pix_fmt: str = column("Pixel format of the coded picture.", default="")
    color_transfer: str = column("Transfer characteristic that the source names; empty if none.", default="")
    field_order: str = column("Which field comes first; empty if frames are progressive.", default="")
    coded_width: int = column("Width as coded.", unit="pixel", default=0)
    coded_height: int = column("Height as coded.", unit="pixel", default=0)
    width: int = column("Width as shown: after rotation and sample aspect ratio.", unit="pixel", default=0)
    height: int = column("Height as shown: after rotation and sample aspect ratio.", unit="pixel", default=0)
    rotation: int = column("Clockwise turn for display.", unit="degree", range="0, 90, 180, 270", default=0)
    sar_num: int = column("Sample aspect ratio, numerator.", default=1)
    sar_den: int = column("Sample aspect ratio, denominator.", default=1)
    time_base_num: int = column("Time base of the video stream, numerator.", unit="s", default=0)
    time_base_den: int = column("Time base of the video stream, denominator.", default=1)
    fps: float = column("Average frame rate.", unit="frame/s", default=0.0)
    duration_s: float = column("Length of the video stream.", unit="s", default=0.0)
    num_packets: int = column("Packets in the video stream.", default=0)
    stream_index: int = column("The stream that was taken, among all streams of the container.", default=0)
    stream_reason: str = column("Why this stream; empty if it is the only video.", default="")
    has_audio: bool = column("An audio stream is present.", default=False)
    is_image: bool = column("A still image.", default=False)
    text: str = column("The source's own text, from a sidecar file; empty if none.", default="")
    licence: str = column("Rights statement from a sidecar file; empty if none.", default="")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """How the one decode pass over a source ended."""

    video_id: str = column("The video.")
    status: str = column("ok, damaged, unreadable or no_video, after decoding.")
    reason: str = column("Why the status is not ok.", default="")
    num_frames: int = column("Frames decoded.")
    decode_passes: int = column(
        "Full-rate decodes of this source; 1, or 2 where the parts of a long one could not be joined.", range="0, 1, 2"
    )
    damaged: list[str] = column("Spans that did not decode, as `start_s-end_s`.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """Full-rate signals of one video: equal-length lists, one entry per decoded frame in display order."""

    video_id: str = column("The video.")
    pts: list[int] = column("Presentation time of each frame, in the stream's time base.", arrow=pa.list_(pa.int64()))
    luma: list[float] = column("Mean luma.", range="[0, 1]", arrow=pa.list_(pa.float32()))
    contrast: list[float] = column("Standard deviation of luma.", range="[0, 1]", arrow=pa.list_(pa.float32()))
    saturation: list[float] = column("Mean saturation.", range="[0, 1]", arrow=pa.list_(pa.float32()))
    sharpness: list[float] = column(
        "Variance of the Laplacian of the small luma picture.", range="[0, inf)", arrow=pa.list_(pa.float32())
    )
    difference: list[float] = column(
        "Mean absolute luma change to the frame before; 0 for the first.", range="[0, 1]", arrow=pa.list_(pa.float32())
    )
    boundary: list[int] = column(
        "Evidence that a shot begins at this frame, in 1/256; 128 is the bound.",
        range="[0, 255]",
        arrow=pa.list_(pa.uint8()),
    )
    gradual: list[int] = column(
        "Evidence that this frame lies in a dissolve, in 1/256; 128 is the bound.",
        range="[0, 255]",
        arrow=pa.list_(pa.uint8()),
    )
    flash: list[int] = column(
        "Evidence that this frame belongs to a flash, in 1/256; 128 is the bound.",
        range="[0, 255]",
        arrow=pa.list_(pa.uint8()),
    )
    damaged: list[bool] = column("This frame lies in a span that did not decode whole.", arrow=pa.list_(pa.bool_()))
    end_pts: int = column("When the last frame ends, in the stream's time base.")
    time_base_num: int = column("Time base that frames were decoded in, numerator.", unit="s")
    time_base_den: int = column("Time base that frames were decoded in, denominator.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProxyFrame:
    """A small JPEG of a frame: what every later model sees of a clip."""

    video_id: str = column("The video.")
    frame_index: int = column("Index of the frame among the decoded frames of its video.")
    pts: int = column("Presentation time in the stream's time base.")
    time_s: float = column("Presentation time.", unit="s")
    width: int = column("Width of the JPEG.", unit="pixel")
    height: int = column("Height of the JPEG.", unit="pixel")
    jpeg: bytes = column("The picture, display orientation, square pixels.")
    edges: list[int] = column(
        "Rows and columns of the full picture as shown, then top, bottom, left and right margin that stays black, "
        "then the same of what is not clearly brighter; empty if not measured.",
        arrow=pa.list_(pa.int32()),
        default=(),
    )
    blockiness: float = column(
        "Excess of luma steps at the 8 x 8 grid over those beside it, in the full picture; 0 if there is none.",
        range="[0, inf)",
        default=0.0,
    )


VIDEOS = Table("videos", Video, ("path",), doc="One row per source file.")
SCANS = Table("scans", Scan, ("video_id",), doc="How the one decode pass over each source ended.")
SIGNALS = Table("signals", Signals, ("video_id",), doc="Full-rate signals, one row of lists per video.")
FRAMES = Table("frames", ProxyFrame, ("video_id", "frame_index"), doc="Proxy frames with their times.")
