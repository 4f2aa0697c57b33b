"""Open-Sora: one CSV over clip files, with the columns that its bucket sampler reads.

`path, text, num_frames, fps, height, width, aspect_ratio, resolution`, as `tools/datasets/datautil.py` of Open-Sora 1.2
writes them: aspect_ratio is height over width, resolution is height times width.  `id` is the clip's.  Paths are
full, because its reader opens them as they stand.  Not written: `text_len`, which counts a tokenizer's tokens.
Cost: a hard link per clip where the file system can, a copy otherwise.
"""

import csv
import io
from pathlib import Path
from typing import Any

from pipelines.exports.base import ExportConfig, Exported, Format, Sample, Source, place, write_whole

COLUMNS = ("path", "text", "num_frames", "fps", "height", "width", "aspect_ratio", "resolution", "id")


def row(sample: Sample, path: Path, config: ExportConfig) -> dict[str, Any]:
    """A line of the CSV."""
    known = sample.row
    return {
        "path": str(path),
        "text": sample.text(config),
        **{k: known[k] for k in ("num_frames", "fps", "height", "width")},
        "aspect_ratio": round(known["height"] / max(known["width"], 1), 6),
        "resolution": known["height"] * known["width"],
        "id": sample.name,
    }


def write(source: Source, to: Path, config: ExportConfig, exported: Exported) -> None:
    """Link the clips, then write the table."""
    out = io.StringIO(newline="")
    table = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    table.writeheader()
    for sample in source.each("opensora"):
        path = to / "videos" / f"{sample.name}.mp4"
        place(source, sample, path, config, exported)
        table.writerow(row(sample, path, config))
    write_whole(to / "videos.csv", out.getvalue().encode())
    exported.read_with = f"pandas.read_csv('{to / 'videos.csv'}')"


FORMAT = Format("opensora", "a CSV with Open-Sora's columns, and the clips", write)
