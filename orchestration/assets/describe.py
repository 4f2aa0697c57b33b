"""What people see of a table in Dagster: columns, rows, numbers that plot over time, one contact sheet.

The UI renders Markdown without HTML, and loads a materialisation's metadata with every page: one JPEG as
base64, and everything together under 200 kB.  Source: the UI's bundle; Dagster's metadata keys.
"""

import base64
import json
from typing import Any

import dagster as dg

from pipelines.execute import Result, Stage
from schemas.store import Commit, Store
from schemas.table import Table

_SHEET_BYTES = 150_000
_TEXT_CHARACTERS = 2_000
_OWN = ("made_by", "status", "reason", "error")
"""Columns of the same name that every table fills for itself."""


def column_schema(table: Table) -> dg.TableSchema:
    """A table's columns with meaning, unit and range."""
    columns = []
    for field in table.schema:
        notes = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
        extra = [f"unit: {notes['unit']}"] if "unit" in notes else []
        extra += [f"range: {notes['range']}"] if "range" in notes else []
        columns.append(
            dg.TableColumn(
                field.name,
                str(field.type),
                " ".join([notes.get("doc", ""), *(f"({e})" for e in extra)]).strip(),
                dg.TableColumnConstraints(nullable=field.nullable, unique=table.key == (field.name,)),
            )
        )
    return dg.TableSchema(columns)


def definition_metadata(table: Table, stage: str) -> dict[str, Any]:
    """What can be said of a table before it was ever made."""
    return {
        "dagster/column_schema": column_schema(table),
        "key": ", ".join(table.key),
        "made_by_stage": stage,
        "command": f"dailies stage {stage}" + (" --batch BATCH" if table.partitioned else ""),
    }


def lineage(table: Table, stage: Stage) -> dict[str, Any]:
    """Which columns of what the stage read a table's own columns carry on: those of the same name.

    A number that is worked out from several columns has no single origin, and none is claimed for it.
    """
    deps = {
        name: [
            dg.TableColumnDep(dg.AssetKey(read.name), name)
            for read in stage.reads + stage.optional
            if name in read.schema.names and read.name != table.name
        ]
        for name in table.schema.names
        if name not in _OWN
    }
    known = {name: found for name, found in deps.items() if found}
    return {"dagster/column_lineage": dg.TableColumnLineage(known)} if known else {}


def metadata(store: Store, table: Table, commit: Commit, *, computed: bool, job_url: str = "") -> dict[str, Any]:
    """What a materialisation of one table shows."""
    rows_key = "dagster/partition_row_count" if table.partitioned else "dagster/row_count"
    shown: dict[str, Any] = {
        "state": "computed" if computed else "reused",
        rows_key: commit.rows,
        "dagster/uri": store.table_path(table, commit.batch),
        "content": commit.content,
        "made_by": commit.made_by,
        "sql": dg.MetadataValue.md(f"```sql\nSELECT * FROM {table.name} LIMIT 10\n```\nwith `dailies sql`"),
    }
    if job_url:
        shown["ray_job"] = dg.MetadataValue.url(job_url)
    for name, value in commit.metrics.items():
        if name != "pictures" and name not in shown and (entry := _value(value)) is not None:
            shown[name] = entry
    return shown


def pictures(store: Store, commit: Commit) -> dict[str, Any]:
    """Contact sheets as Markdown, as many as fit."""
    shown, left = {}, _SHEET_BYTES
    for name, path in dict(commit.metrics.get("pictures", {})).items():
        jpeg = store.read_bytes(path) if store.exists(path) else b""
        text = base64.b64encode(jpeg).decode()
        if not jpeg or len(text) > left:
            shown[name] = path
            continue
        left -= len(text)
        shown[name] = dg.MetadataValue.md(f"![{name}](data:image/jpeg;base64,{text})")
    return shown


def summary(result: Result) -> str:
    """One line on what a stage made."""
    rows = ", ".join(f"{name} {count}" for name, count in result.rows.items())
    seconds = result.metrics.get("seconds", result.seconds)
    return f"{rows} rows; computed in {seconds} s" if result.computed else f"{rows} rows; reused, nothing to do"


def _value(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, (bool, int, str)):
        return value if not isinstance(value, str) else value[:_TEXT_CHARACTERS]
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    text = json.dumps(value, default=str)
    return dg.MetadataValue.json(json.loads(text)) if len(text) <= _TEXT_CHARACTERS else text[:_TEXT_CHARACTERS]
