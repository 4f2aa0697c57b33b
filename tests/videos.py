"""Truth made, not stored: small videos whose every frame is known."""

import dataclasses
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


@dataclasses.dataclass(frozen=True)
class Colors:
    """How code values mean light: libav's numbers."""

    range: int = 1
    """1 limited, 2 full."""
    matrix: int = 1
    """1 BT.709, 5 BT.601 (625 lines), 9 BT.2020."""
    transfer: int = 1
    """1 BT.709, 16 PQ, 18 HLG."""
    primaries: int = 1
    """1 BT.709, 9 BT.2020."""


RED, GREEN, BLUE = (200, 40, 40), (40, 170, 60), (40, 60, 200)
WHITE, BLACK = (235, 235, 235), (20, 20, 20)


def flat(color: Sequence[int], width: int = 64, height: int = 48) -> np.ndarray:
    """A picture of one colour."""
    return np.full((height, width, 3), color, np.uint8)


def numbered(number: int, width: int = 96, height: int = 64) -> np.ndarray:
    """A picture that holds its own number as eight black or white blocks, readable after any encoder."""
    picture = np.full((height, width, 3), 90, np.uint8)
    cell = width // 8
    for bit in range(8):
        picture[16:48, bit * cell + 2 : (bit + 1) * cell - 2] = 255 if number >> bit & 1 else 0
    return picture


def read_number(picture: np.ndarray) -> int:
    """The number of a picture made by `numbered`, whatever its size."""
    height, width = picture.shape[:2]
    row = picture[height // 2].mean(axis=1)
    return sum(int(row[int((bit + 0.5) * width / 8)] > 128) << bit for bit in range(8))


def marked(number: int, width: int = 96, height: int = 64) -> np.ndarray:
    """A numbered picture that also tells which way up it is: white, red, blue and black in its corners."""
    picture = numbered(number, width, height)
    rows, columns = height // 5, width // 6
    picture[:rows, :columns], picture[:rows, -columns:] = WHITE, RED
    picture[-rows:, :columns], picture[-rows:, -columns:] = BLUE, BLACK
    return picture


def textured(seed: int, width: int = 160, height: int = 96, shift: int = 0) -> np.ndarray:
    """A smooth random colour picture; another seed is another place, a shift moves the camera."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 236, (7, 20, 3)).astype(np.float64)
    columns = (np.arange(width) + shift) / 16 % 19
    rows = np.linspace(0, 5.99, height)
    c, r = columns.astype(int), rows.astype(int)
    fc, fr = (columns - c)[None, :, None], (rows - r)[:, None, None]
    top = coarse[r][:, c] * (1 - fc) + coarse[r][:, c + 1] * fc
    bottom = coarse[r + 1][:, c] * (1 - fc) + coarse[r + 1][:, c + 1] * fc
    return (top * (1 - fr) + bottom * fr).astype(np.uint8)


def shot(seed: int, frames: int, step: int = 2) -> list[np.ndarray]:
    """A pan over one place."""
    return [textured(seed, shift=i * step) for i in range(frames)]


def make_video(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: Fraction | int = 25,
    codec: str = "libx264",
    *,
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    rotation: int = 0,
    sar: Fraction | None = None,
    gop: int = 12,
    pix_fmt: str = "yuv420p",
    colors: Colors | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode RGB frames; `times` (in `time_base`) makes the frame rate variable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    base = time_base or 1 / Fraction(fps)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = None
        for index, picture in enumerate(frames):
            if stream is None:
                stream = container.add_stream(codec, rate=Fraction(fps))
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = pix_fmt
                stream.codec_context.time_base = base
                stream.codec_context.gop_size = gop
                stream.options = {"crf": "12", **(options or {})} if codec == "libx264" else options or {}
                if sar is not None:
                    stream.codec_context.sample_aspect_ratio = sar
                if rotation:
                    stream.set_display_rotation(rotation)
                if colors:
                    context = stream.codec_context
                    context.color_range, context.colorspace = colors.range, colors.matrix
                    context.color_trc, context.color_primaries = colors.transfer, colors.primaries
            layout = "rgb48le" if picture.dtype == np.uint16 else "rgb24"
            frame = av.VideoFrame.from_ndarray(picture, format=layout)
            if colors:
                frame = frame.reformat(
                    format=pix_fmt, dst_colorspace=colors.matrix, dst_color_range=colors.range, interpolation="BICUBIC"
                )
                frame.color_trc, frame.color_primaries = colors.transfer, colors.primaries
            frame.pts, frame.time_base = (times[index] if times else index), base
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode())
    return path


def remux(
    source: Path, path: Path, *, shift_s: float = 0.0, options: dict[str, str] | None = None, drop: Sequence[int] = ()
) -> Path:
    """Copy the packets of a file without B-frames, or of an mp4, to another container: moved in time, some left out."""
    with av.open(str(source)) as old, av.open(str(path), "w", options=options or {}) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        shift = round(shift_s / stream.time_base)
        for number, packet in enumerate(old.demux(stream)):
            if packet.dts is None or number in drop:
                continue
            packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, copy
            new.mux(packet)
    return path


def decode_all(path: Path) -> list[tuple[Fraction, np.ndarray]]:
    """Every frame of a file with its time, by PyAV alone: the second witness."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [(f.pts * stream.time_base, f.to_ndarray(format="rgb24")) for f in container.decode(stream)]
