"""The matrix of odd but whole videos: how each is made, and what is true of it.

Every file is made here, of pictures that hold their own number and tell which way up they are, so that times,
order, orientation and brightness can all be read back from any picture that the pipeline makes of it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from tests.videos import Colors, make_video, marked, remux

NUM = 20
PQ, HLG = 16, 18
TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])  # from BT.709


@dataclasses.dataclass(frozen=True)
class Truth:
    """What must come out of one file."""

    path: Path
    numbers: Sequence[int]
    """The pictures' own numbers, in order."""
    times: Sequence[Fraction]
    """When each is shown, s, on the stream's own clock."""
    size: tuple[int, int] = (96, 64)
    """Width and height as shown."""
    near: int = 10
    """By how much a grey value may differ after all conversions."""
    gray: bool = False
    """The file knows no colours."""
    row: dict[str, object] = dataclasses.field(default_factory=dict)
    """Columns of its row in `videos`."""


Maker = Callable[[Path], Truth]
MAKERS: dict[str, Maker] = {}


def _case(maker: Maker) -> Maker:
    MAKERS[maker.__name__.strip("_")] = maker
    return maker


def _even(step: Fraction, start: Fraction | int = 0, num: int = NUM) -> list[Fraction]:
    return [start + i * step for i in range(num)]


def _pictures(num: int = NUM, width: int = 96, height: int = 64) -> list[np.ndarray]:
    return [marked(i, width, height) for i in range(num)]


def _plain(path: Path, **options: object) -> Path:
    return make_video(path, _pictures(), options={"bf": "0"}, **options)  # type: ignore[arg-type]


def _turned(folder: Path, clockwise: int) -> Truth:
    """Coded on its side; a matrix says how to turn it for display."""
    coded = [np.ascontiguousarray(np.rot90(p, k=clockwise // 90)) for p in _pictures(width=96, height=64)]
    path = make_video(folder / "a.mp4", coded, rotation=-clockwise)
    return Truth(path, range(NUM), _even(Fraction(1, 25)), row={"rotation": clockwise})


for _clockwise in (90, 180, 270):
    MAKERS[f"rotation_{_clockwise}"] = lambda folder, c=_clockwise: _turned(folder, c)  # type: ignore[misc]


@_case
def _constant_rate_ntsc(folder: Path) -> Truth:
    path = _plain(folder / "a.mp4", fps=Fraction(30000, 1001))
    return Truth(path, range(NUM), _even(Fraction(1001, 30000)))


@_case
def _b_frames_in_mp4(folder: Path) -> Truth:
    path = make_video(folder / "a.mp4", _pictures(), options={"bf": "3", "b_adapt": "0"})
    return Truth(path, range(NUM), _even(Fraction(1, 25)))


@_case
def _b_frames_in_transport_stream(folder: Path) -> Truth:
    path = make_video(folder / "a.ts", _pictures(), options={"bf": "3", "b_adapt": "0"})
    return Truth(path, range(NUM), _even(Fraction(1, 25), Fraction(2, 25)))  # the delay of two reordered frames


@_case
def _b_frames_in_avi(folder: Path) -> Truth:
    """A container without presentation times: frames come at the pace of its packets, two later than the first."""
    path = make_video(folder / "a.avi", _pictures(), options={"bf": "3", "b_adapt": "0"})
    return Truth(path, range(NUM), _even(Fraction(1, 25), Fraction(2, 25)))


@_case
def _variable_rate_in_mp4(folder: Path) -> Truth:
    times = list(np.cumsum([0, 40, 10, 120, 1, 230, 40, 500, 40, 40, 7, 33, 40, 90, 200, 3, 40, 40, 80, 40]))
    path = _plain(folder / "a.mp4", times=[int(t) for t in times], time_base=Fraction(1, 1000))
    return Truth(path, range(NUM), [Fraction(int(t), 1000) for t in times])


@_case
def _variable_rate_in_matroska(folder: Path) -> Truth:
    times = [
        0,
        33,
        67,
        100,
        300,
        333,
        1000,
        1033,
        1067,
        1100,
        1133,
        1500,
        1510,
        1520,
        1530,
        1540,
        1550,
        1800,
        1900,
        2000,
    ]
    path = _plain(folder / "a.mkv", times=times, time_base=Fraction(1, 1000))
    return Truth(path, range(NUM), [Fraction(t, 1000) for t in times])


@_case
def _edit_list_that_skips_the_start(folder: Path) -> Truth:
    """Packets before time zero are decoded and not shown: what `ffmpeg -ss -c copy` leaves."""
    whole = make_video(folder / "whole.mp4", _pictures(), options={"bf": "0"})
    path = remux(whole, folder / "a.mp4", shift_s=-5 / 25, options={"avoid_negative_ts": "disabled"})
    return Truth(path, range(5, NUM), _even(Fraction(1, 25), num=NUM - 5))


@_case
def _edit_list_with_b_frames(folder: Path) -> Truth:
    whole = make_video(folder / "whole.mp4", _pictures(), options={"bf": "2", "b_adapt": "0"})
    path = remux(whole, folder / "a.mp4", shift_s=-5 / 25, options={"avoid_negative_ts": "disabled"})
    return Truth(path, range(5, NUM), _even(Fraction(1, 25), num=NUM - 5))


@_case
def _edit_list_that_ends_early(folder: Path) -> Truth:
    path = _plain(folder / "a.mp4")
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4 + 4 + 4  # version and flags, number of entries; then the entry's duration
    length = int.from_bytes(data[at : at + 4], "big")
    data[at : at + 4] = (length * 12 // NUM).to_bytes(4, "big")
    path.write_bytes(data)
    return Truth(path, range(12), _even(Fraction(1, 25), num=12))


@_case
def _late_start(folder: Path) -> Truth:
    path = remux(_plain(folder / "whole.mp4"), folder / "a.mkv", shift_s=10.0)
    return Truth(path, range(NUM), _even(Fraction(1, 25), 10))


@_case
def _negative_times(folder: Path) -> Truth:
    path = remux(_plain(folder / "whole.mp4"), folder / "a.ts", shift_s=-3.4, options={"avoid_negative_ts": "disabled"})
    return Truth(path, range(NUM), _even(Fraction(1, 25), Fraction(-34, 10)))


@_case
def _wide_pixels(folder: Path) -> Truth:
    coded = [np.asarray(Image.fromarray(p).resize((64, 64), Image.Resampling.BOX)) for p in _pictures()]
    path = make_video(folder / "a.mkv", coded, sar=Fraction(3, 2))
    return Truth(path, range(NUM), _even(Fraction(1, 25)), row={"sar_num": 3, "sar_den": 2, "coded_width": 64})


@_case
def _tall_pixels(folder: Path) -> Truth:
    coded = [np.asarray(Image.fromarray(p).resize((96, 32), Image.Resampling.BOX)) for p in _pictures()]
    path = make_video(folder / "a.mkv", coded, sar=Fraction(1, 2))
    return Truth(path, range(NUM), _even(Fraction(1, 25)), row={"sar_num": 1, "sar_den": 2})


@_case
def _wide_pixels_turned(folder: Path) -> Truth:
    shown = [np.asarray(Image.fromarray(p).resize((96, 32), Image.Resampling.BOX)) for p in _pictures()]
    coded = [np.ascontiguousarray(np.rot90(p, k=1)) for p in shown]  # 32 x 96, each pixel to be shown twice as wide
    path = make_video(folder / "a.mp4", coded, rotation=-90, sar=Fraction(2))
    return Truth(path, range(NUM), _even(Fraction(1, 25)), row={"rotation": 90, "sar_num": 2})


@_case
def _interlaced_h264(folder: Path) -> Truth:
    path = make_video(folder / "a.mkv", _pictures(), options={"bf": "0", "x264-params": "tff=1"})
    return Truth(path, range(NUM), _even(Fraction(1, 25)), row={"field_order": "top"})


@_case
def _interlaced_mpeg2(folder: Path) -> Truth:
    options = {"flags": "+ildct+ilme", "top": "0", "q:v": "2", "b": "3000k"}
    path = make_video(folder / "a.mpg", _pictures(), codec="mpeg2video", options=options)
    return Truth(path, range(NUM), _even(Fraction(1, 25), Fraction(54, 100)), row={"codec": "mpeg2video"})


@_case
def _ten_bit(folder: Path) -> Truth:
    path = make_video(folder / "a.mkv", _pictures(), pix_fmt="yuv420p10le", options={"bf": "0"})
    return Truth(path, range(NUM), _even(Fraction(1, 25)), row={"pix_fmt": "yuv420p10le", "color_transfer": ""})


@_case
def _bt709_colors(folder: Path) -> Truth:
    path = make_video(folder / "a.mp4", _pictures(), options={"bf": "0"}, colors=Colors(matrix=1))
    return Truth(path, range(NUM), _even(Fraction(1, 25)), row={"color_transfer": "bt709"})


@_case
def _hdr_pq(folder: Path) -> Truth:
    colors = Colors(range=1, matrix=9, transfer=PQ, primaries=9)
    pictures = [to_pq(p) for p in _pictures()]
    path = make_video(folder / "a.mkv", pictures, pix_fmt="yuv420p10le", options={"bf": "0"}, colors=colors)
    return Truth(path, range(NUM), _even(Fraction(1, 25)), near=20, row={"color_transfer": "smpte2084"})


@_case
def _hdr_hlg_hevc(folder: Path) -> Truth:
    colors = Colors(range=1, matrix=9, transfer=HLG, primaries=9)
    pictures = [to_hlg(p) for p in _pictures()]
    options = {"x265-params": "log-level=none:bframes=0:crf=12", "preset": "ultrafast"}
    path = make_video(
        folder / "a.mp4", pictures, codec="libx265", pix_fmt="yuv420p10le", options=options, colors=colors
    )
    return Truth(path, range(NUM), _even(Fraction(1, 25)), near=20, row={"color_transfer": "arib-std-b67"})


@_case
def _full_range(folder: Path) -> Truth:
    path = make_video(folder / "a.mkv", _pictures(), options={"bf": "0"}, colors=Colors(range=2, matrix=5, transfer=1))
    return Truth(path, range(NUM), _even(Fraction(1, 25)))


@_case
def _motion_jpeg(folder: Path) -> Truth:
    path = make_video(folder / "a.avi", _pictures(), codec="mjpeg", pix_fmt="yuvj422p", options={"q:v": "2"})
    return Truth(path, range(NUM), _even(Fraction(1, 25)), row={"codec": "mjpeg"})


@_case
def _gray(folder: Path) -> Truth:
    path = make_video(folder / "a.mkv", _pictures(), codec="ffv1", pix_fmt="gray")
    return Truth(path, range(NUM), _even(Fraction(1, 25)), gray=True, row={"pix_fmt": "gray"})


@_case
def _gray_12_bit(folder: Path) -> Truth:
    path = make_video(folder / "a.mkv", _pictures(), codec="ffv1", pix_fmt="gray12le")
    return Truth(path, range(NUM), _even(Fraction(1, 25)), gray=True, row={"pix_fmt": "gray12le"})


@_case
def _rgb(folder: Path) -> Truth:
    path = make_video(folder / "a.mkv", _pictures(), codec="ffv1", pix_fmt="bgr0")
    return Truth(path, range(NUM), _even(Fraction(1, 25)))


@_case
def _full_chroma(folder: Path) -> Truth:
    path = make_video(folder / "a.mp4", _pictures(), pix_fmt="yuv444p", options={"bf": "0"})
    return Truth(path, range(NUM), _even(Fraction(1, 25)), row={"pix_fmt": "yuv444p"})


@_case
def _odd_size(folder: Path) -> Truth:
    options = {"deadline": "realtime", "cpu-used": "8"}
    path = make_video(folder / "a.webm", _pictures(width=97, height=65), codec="libvpx-vp9", options=options)
    return Truth(path, range(NUM), _even(Fraction(1, 25)), size=(97, 65))


@_case
def _animated_gif(folder: Path) -> Truth:
    pictures = [Image.fromarray(p) for p in _pictures()]
    steps = [40, 80] * (NUM // 2)
    pictures[0].save(folder / "a.gif", save_all=True, append_images=pictures[1:], duration=steps)
    times = np.cumsum([0, *steps[:-1]])
    return Truth(folder / "a.gif", range(NUM), [Fraction(int(t), 1000) for t in times])


@_case
def _animated_png(folder: Path) -> Truth:
    pictures = [Image.fromarray(p) for p in _pictures()]
    steps = [40, 80] * (NUM // 2)
    pictures[0].save(folder / "a.png", save_all=True, append_images=pictures[1:], duration=steps)
    times = np.cumsum([0, *steps[:-1]])
    return Truth(folder / "a.png", range(NUM), [Fraction(int(t), 1000) for t in times], row={"container": "apng"})


@_case
def _one_frame(folder: Path) -> Truth:
    path = make_video(folder / "a.mp4", _pictures(1))
    return Truth(path, [0], [Fraction(0)], row={"num_packets": 1, "is_image": False})


@_case
def _wrong_extension(folder: Path) -> Truth:
    path = _plain(folder / "whole.mkv").rename(folder / "a.jpg")
    return Truth(path, range(NUM), _even(Fraction(1, 25)), row={"is_image": False})


@_case
def _odd_name(folder: Path) -> Truth:
    path = _plain(folder / "plain.mp4").rename(folder / "-a %03d:'\"\n\t[x]\u00e9\U0001f3ac .mp4")
    return Truth(path, range(NUM), _even(Fraction(1, 25)))


def to_pq(picture: np.ndarray) -> np.ndarray:
    """The same picture for a PQ display whose white is 203 cd/m2 (ITU-R BT.2408): 16-bit code values."""
    light = ((picture / 255.0) ** 2.4 @ TO_2020.T) * 203 / 10000
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    powered = light**m1
    return _codes(((c1 + c2 * powered) / (1 + c3 * powered)) ** m2)


def to_hlg(picture: np.ndarray) -> np.ndarray:
    """The same picture for an HLG display of 1000 cd/m2 whose white is 203 cd/m2: 16-bit code values."""
    light = ((picture / 255.0) ** 2.4 @ TO_2020.T) * 203 / 1000
    luma = np.maximum(light @ np.array([0.2627, 0.6780, 0.0593]), 1e-9)[..., None]
    scene = light * luma ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    high = a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
    return _codes(np.where(scene <= 1 / 12, np.sqrt(3 * scene), high))


def _codes(signal: np.ndarray) -> np.ndarray:
    return (np.clip(signal, 0, 1) * 65535 + 0.5).astype(np.uint16)
