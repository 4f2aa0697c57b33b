"""The decode floor of a root: what decoding its sources once to nowhere costs, measured on a few and scaled by pixels.

Evenly spread sources of status ok are decoded with ffmpeg (`pipelines/video/null.py`), a minute of each at most;
the CPU seconds per megapixel times the megapixels of all of them is the floor.  Codecs differ in cost per pixel,
so a mixed root wants a larger sample; the record says how many were decoded of how many.
"""

import posixpath
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.report.cost import FLOOR
from pipelines.video.null import decode_to_nowhere
from schemas.errors import UsageError, WorldError
from schemas.store import Store
from schemas.videos import VIDEOS, VideoStatus

_COLUMNS = ("path", "folder", "status", "duplicate_of", "coded_width", "coded_height", "fps", "duration_s", "is_image")
MOST_SOURCES, LIMIT_S = 8, 60.0


def record(
    store: Store,
    batches: Sequence[str],
    *,
    most: int = MOST_SOURCES,
    limit_s: float = LIMIT_S,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure, and keep what was found under the root.

    Raises:
        UsageError: If none of the sources is at hand, or none decodes.
    """
    found = [r for b in batches for r in store.read(VIDEOS, batch=b, columns=list(_COLUMNS)).to_pylist()]
    videos = [r for r in found if r["status"] == VideoStatus.OK and r["duplicate_of"] is None and not r["is_image"]]
    videos = sorted((r for r in videos if _megapixels(r) > 0 and "://" not in r["folder"]), key=lambda r: r["path"])
    step = max(1.0, len(videos) / most)
    cpu_s, pixels, sources = 0.0, 0.0, 0
    for row in [videos[int(i * step)] for i in range(min(most, len(videos)))]:
        path = posixpath.join(row["folder"], row["path"])
        try:
            used = decode_to_nowhere(path, limit_s)
        except WorldError as e:
            say(f"left out: {e}")
            continue
        cpu_s, pixels, sources = cpu_s + used, pixels + _megapixels(row, limit_s), sources + 1
        say(f"decoded {row['path']} to nowhere: {used:.2f} CPU s")
    if not sources:
        raise UsageError(f"no source of {', '.join(batches) or 'any batch'} is at hand to measure the decode floor on")
    whole = sum(_megapixels(r) for r in videos)
    known = {
        "cpu_s": round(cpu_s, 3),
        "megapixels": round(pixels, 1),
        "sources": sources,
        "sources_of_all": len(videos),
        "cpu_s_of_all": round(cpu_s / pixels * whole, 3),
        "limit_s": limit_s,
    }
    store.write_json(known, *FLOOR)
    return known


def _megapixels(row: dict[str, Any], limit_s: float = float("inf")) -> float:
    seconds = min(float(row["duration_s"]), limit_s)
    return float(row["coded_width"] * row["coded_height"] * row["fps"] * seconds / 1e6)
