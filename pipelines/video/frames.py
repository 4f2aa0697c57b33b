"""Small pictures: one of every frame for the signals, and JPEG proxies of a few for every later model.

The small picture is made by libavfilter's `scale` into planar YUV, because swscale's fast path there costs
a sixth of a decode where a detour over RGB doubles it.  It keeps the coded orientation (signals do not
mind) and always has about the same area, so that sharpness and edges mean the same at every resolution.

A proxy is shown as a viewer sees it: turned, with square pixels, short side at most 144, never enlarged.
Both are tone-mapped where the source is HDR (`pipelines.video.color`).
"""

import dataclasses
import io
import itertools
import math
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

from pipelines.video.color import HDR, luma_table, to_sdr, transfer_of

SMALL_AREA = 160 * 90
_EVEN, _FULL_RANGE = 2, 2
_EVERY_ROW = 8
"""Rows between those that blockiness is measured on."""
_GRAIN = 0.5
"""Mean step, 0-255, below which a grid is not seen."""


def small_size(width: int, height: int, area: int = SMALL_AREA) -> tuple[int, int]:
    """An even size of about `area` pixels and the picture's aspect ratio; never larger than the picture.

    A picture more than sixteen times as long as wide is treated as sixteen times.
    """
    aspect = min(16.0, max(1 / 16, width / height))
    w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
    shrink = min(1.0, width / w, height / h)
    return tuple(max(8, int(v * shrink) // _EVEN * _EVEN) for v in (w, h))  # type: ignore[return-value]


@dataclasses.dataclass(slots=True)
class SmallPicture:
    """Luma and chroma of a shrunken frame."""

    luma: np.ndarray
    """(height, width) uint8, 16-235."""
    chroma_blue: np.ndarray
    """(height / 2, width / 2) uint8, 128 is neutral."""
    chroma_red: np.ndarray


class Shrinker:
    """Scales every frame of a video to one small size; survives a change of size or format on the way."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = small_size(width, height)
        self._key: tuple[int, int, str, int, int] | None = None
        self._tone: np.ndarray | None = None
        self._source: Any = None
        self._sink: Any = None
        self._graph: Any = None

    def shrink(self, frame: Any) -> SmallPicture:
        small = self.room(1)
        self.shrink_into(frame, small, 0)
        return SmallPicture(small.luma[0], small.chroma_blue[0], small.chroma_red[0])

    def room(self, frames: int) -> SmallPicture:
        """Planes for that many frames: (frame, height, width)."""
        luma, chroma = (frames, self.height, self.width), (frames, self.height // 2, self.width // 2)
        return SmallPicture(np.empty(luma, np.uint8), np.empty(chroma, np.uint8), np.empty(chroma, np.uint8))

    def shrink_into(self, frame: Any, room: SmallPicture, place: int) -> None:
        """Write one frame's small picture to its place in `room`."""
        key = (frame.width, frame.height, frame.format.name, int(frame.color_range), int(frame.color_trc))
        if key != self._key:
            self._build(frame, key)
        self._source.push(frame)
        luma, blue, red = self._sink.pull().planes[:3]
        room.luma[place] = _plane_view(luma) if self._tone is None else self._tone[_plane_view(luma)]
        room.chroma_blue[place] = _plane_view(blue)
        room.chroma_red[place] = _plane_view(red)

    def _build(self, frame: Any, key: tuple[int, int, str, int, int]) -> None:
        graph = av.filter.Graph()
        graph.threads = 1  # workers are the parallelism
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
        )
        # limited range, whatever the source: one meaning of luma
        full = frame.format.name.startswith("yuvj") or int(frame.color_range) == _FULL_RANGE
        ranges = f"in_range={'full' if full else 'auto'}:out_range=limited"
        scale = graph.add("scale", f"w={self.width}:h={self.height}:flags=fast_bilinear:{ranges}")
        layout = graph.add("format", "pix_fmts=yuv420p")
        sink = graph.add("buffersink")
        source.link_to(scale)
        scale.link_to(layout)
        layout.link_to(sink)
        graph.configure()
        self._graph, self._source, self._sink, self._key = graph, source, sink, key
        transfer = transfer_of(frame)
        self._tone = luma_table(transfer) if transfer in HDR else None


def _plane_view(plane: Any) -> np.ndarray:
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def proxy_size(width: int, height: int, short_side: int, area: int) -> tuple[int, int]:
    """Size of a proxy of a picture of that shown size: bounded in short side and area, never enlarged."""
    scale = min(1.0, short_side / min(width, height), math.sqrt(area / (width * height)))
    return max(1, round(width * scale)), max(1, round(height * scale))


class ProxyMaker:
    """Makes proxies and border profiles of one video; holds one scaler, since setting one up costs 10 ms."""

    def __init__(self, size: tuple[int, int], rotation: int, quality: int) -> None:
        """Args:
        size: Width and height of the JPEG, after the turn.
        rotation: Clockwise turn for display: 0, 90, 180 or 270.
        """
        self.size, self._rotation, self._quality = size, rotation, quality
        self._scaler = av.video.reformatter.VideoReformatter()
        self._to_rgb = av.video.reformatter.VideoReformatter()
        self._to_gray = av.video.reformatter.VideoReformatter()

    def jpeg(self, frame: Any) -> bytes:
        """Encode a frame as it is shown."""
        import cv2

        rgb = self._small(frame)
        if self._rotation:
            rgb = np.ascontiguousarray(np.rot90(rgb, k=-self._rotation // 90))
        _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, self._quality])
        return jpeg.tobytes()

    def _small(self, frame: Any) -> np.ndarray:
        """The frame at the proxy's size before the turn, (height, width, 3) uint8 RGB.

        A YUV picture is scaled as one, with chroma of half size as in the JPEG: half the cost of scaling to RGB.
        """
        width, height = self.size if self._rotation in (0, 180) else self.size[::-1]
        transfer = transfer_of(frame)
        layout = "rgb48le" if transfer in HDR else "yuv420p" if frame.format.name.startswith("yuv") else "rgb24"
        small = self._scaler.reformat(frame, width=width, height=height, format=layout, interpolation="AREA", threads=1)
        if transfer in HDR:
            rgb = to_sdr(small.to_ndarray().astype(np.float32) / 65535, transfer)
            return np.asarray(np.round(rgb * 255), np.uint8)
        return np.asarray(self._to_rgb.reformat(small, format="rgb24", threads=1).to_ndarray())

    def borders(self, frame: Any) -> tuple[np.ndarray, np.ndarray]:
        """Brightest luma of every row and every column at full resolution, as shown, uint8."""
        luma = self._luma(frame)
        rows, columns = luma.max(axis=1), luma.max(axis=0)
        if self._rotation == 90:
            rows, columns = columns, rows[::-1]
        elif self._rotation == 180:
            rows, columns = rows[::-1], columns[::-1]
        elif self._rotation == 270:
            rows, columns = columns[::-1], rows
        return rows, columns

    def blockiness(self, frame: Any) -> float:
        """How much larger luma steps are at every eighth column than beside it; 0 for a clean picture."""
        luma = self._luma(frame)[::_EVERY_ROW]
        at = np.arange(8, luma.shape[1] - 2, 8)
        if not len(at):
            return 0.0
        around = [luma[:, at + d].astype(np.int16) for d in (-2, -1, 0, 1)]
        steps = [float(np.abs(b - a).mean()) for a, b in itertools.pairwise(around)]
        return round(max(0.0, (steps[1] + _GRAIN) / ((steps[0] + steps[2]) / 2 + _GRAIN) - 1), 6)

    def _luma(self, frame: Any) -> np.ndarray:
        """The luma plane itself where the format has one of 8 bits; a conversion otherwise."""
        name = frame.format.name
        if name.startswith(("yuv4", "yuvj4", "gray", "nv12")) and frame.format.components[0].bits == 8:
            return _plane_view(frame.planes[0])
        return self._to_gray.reformat(frame, format="gray", threads=1).to_ndarray()


def read_jpeg(jpeg: bytes) -> np.ndarray:
    """A proxy's pixels, (height, width, 3) uint8 RGB."""
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image.convert("RGB"))


def nearest_indices(num: int, count: int) -> list[int]:
    """`count` indices spread evenly over `num` items, ends included, without repeats."""
    if num <= 0:
        return []
    if count <= 1 or num == 1:
        return [num // 2]
    count = min(count, num)
    return sorted({round(i * (num - 1) / (count - 1)) for i in range(count)})
