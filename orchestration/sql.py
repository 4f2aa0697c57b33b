"""`dailies sql`: DuckDB over the tables of a root, reading only.

Every table is a view in a database in memory.  One SELECT is allowed (that is what keeps COPY, ATTACH and
the like out), and before it runs, DuckDB may open files of this root's tables only and its configuration is
locked.  A root in an object store is first read into memory.
"""

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from schemas.errors import UsageError
from schemas.store import Store


def tables(store: Store) -> list[str]:
    """Names of the tables that exist under a root."""
    found = store.fs.glob(store.at("tables", "*", "**", "*.parquet"))
    return sorted({posixpath.relpath(p, store.at("tables")).split("/")[0] for p in found})


def connect(store: Store) -> duckdb.DuckDBPyConnection:
    """A database in memory with one view per table, that can read this root and nothing else."""
    connection = duckdb.connect(":memory:")
    for name in tables(store):
        if store.is_local:
            glob = store.at("tables", name, "**", "*.parquet").replace("'", "''")
            source = f"read_parquet('{glob}', hive_partitioning = true, union_by_name = true)"
            connection.execute(f'CREATE VIEW "{name}" AS SELECT * FROM {source}')  # noqa: S608 - our own names
        else:
            connection.register(name, _in_memory(store, name))
    if store.is_local:
        folder = store.at("tables").replace("'", "''")
        connection.execute(f"SET allowed_directories = ['{folder}/']")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def query(store: Store, text: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of one SELECT.

    Raises:
        UsageError: If it is not one SELECT, or DuckDB refuses it.
    """
    with connect(store) as connection:
        try:
            statements = connection.extract_statements(text)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise UsageError("`dailies sql` takes one SELECT; the tables are written by stages alone")
            result = connection.execute(statements[0])
            columns = [d[0] for d in result.description or ()]
            return columns, result.fetchall()
        except duckdb.Error as e:
            known = ", ".join(tables(store))
            raise UsageError(f"{' '.join(str(e).split())}; tables: {known}") from e


def as_text(columns: Sequence[str], rows: Sequence[Sequence[Any]], most: int = 200) -> str:
    """Aligned columns, with wide values cut."""
    shown = [[_cell(v) for v in row] for row in rows[:most]]
    widths = [max([len(c), *(len(r[i]) for r in shown)]) for i, c in enumerate(columns)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(columns, widths)).rstrip()]
    lines.append("  ".join("-" * w for w in widths))
    lines += ["  ".join(v.ljust(w) for v, w in zip(row, widths)).rstrip() for row in shown]
    if len(rows) > most:
        lines.append(f"... {len(rows) - most} more rows")
    return "\n".join(lines)


def as_records(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Mapping[str, Any]]:
    return [dict(zip(columns, row)) for row in rows]


def _cell(value: Any) -> str:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = "" if value is None else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _in_memory(store: Store, name: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = store.fs.glob(store.at("tables", name, "**", "*.parquet"))
    read = []
    for path in paths:
        with store.fs.open(path, "rb") as f:
            part = pq.ParquetFile(f).read()
        folder = posixpath.basename(posixpath.dirname(path))
        if folder.startswith("batch="):
            part = part.append_column("batch", pa.array([folder.removeprefix("batch=")] * part.num_rows, pa.string()))
        read.append(part.replace_schema_metadata(None))
    return pa.concat_tables(read, promote_options="permissive")
