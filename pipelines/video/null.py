"""Decoding a file once to nowhere with ffmpeg: the least that any pass over its frames can cost.

One thread, no scaling, no output.  The CPU seconds are those of the child process, so other work on the machine
raises the elapsed time and hardly this.  The ffmpeg is the one that cuts clips.
"""

import resource
import subprocess

from pipelines.video.cut import ffmpeg_exe
from schemas.errors import WorldError


def decode_to_nowhere(path: str, limit_s: float, timeout_s: float = 600.0) -> float:
    """CPU seconds of decoding the first `limit_s` seconds of a file's first video stream.

    Raises:
        WorldError: If ffmpeg fails on it or does not end in time.
    """
    command = [
        ffmpeg_exe(), "-v", "error", "-nostdin", "-threads", "1", "-t", str(limit_s),
        "-i", f"file:{path}", "-map", "0:v:0", "-f", "null", "-",
    ]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        ended = subprocess.run(command, capture_output=True, timeout=timeout_s, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as e:
        raise WorldError(f"ffmpeg did not decode {path} within {timeout_s:g} s") from e
    if ended.returncode:
        raise WorldError(f"ffmpeg does not decode {path}: {ended.stderr.decode(errors='replace').strip()[-300:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
