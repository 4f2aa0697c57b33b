"""Hugging Face `datasets`: a VideoFolder, that is `train/` with the clips and `metadata.parquet` beside them.

    datasets.load_dataset("videofolder", data_dir=FOLDER)

Every column of the manifest comes along; `text` is the caption that was asked for, `scores` stays JSON, because
clips need not have the same ones.  The table is written last, so that it never names a clip that is not there.
Cost: a hard link per clip where the file system can, a copy otherwise.
"""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.exports.base import ExportConfig, Exported, Format, Sample, Source, place, write_whole


def row(sample: Sample, config: ExportConfig) -> dict[str, Any]:
    """A line of the metadata."""
    known = {k: v for k, v in sample.row.items() if k not in ("path", "scores", "fields")}
    nested = {k: json.dumps(sample.row[k], sort_keys=True, ensure_ascii=False) for k in ("scores", "fields")}
    return {"file_name": f"{sample.name}.mp4", "text": sample.text(config), **known, **nested}


def write(source: Source, to: Path, config: ExportConfig, exported: Exported) -> None:
    """Link the clips, then write the table."""
    rows = []
    for sample in source.each("videofolder"):
        place(source, sample, to / "train" / f"{sample.name}.mp4", config, exported)
        rows.append(row(sample, config))
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows) if rows else pa.table({"file_name": pa.array([], pa.string())}), sink)
    write_whole(to / "train" / "metadata.parquet", sink.getvalue())
    exported.read_with = f"datasets.load_dataset('videofolder', data_dir='{to}')"


FORMAT = Format("videofolder", "Hugging Face `datasets` VideoFolder: clips and metadata.parquet", write)
