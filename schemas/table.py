"""A row dataclass is the one description of a table; everything else follows from it.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Shot:
        shot_id: str = column("Name of the shot.")
        start_s: float = column("First frame's time.", unit="s", range="[0, inf)")

`arrow_schema(Shot)` gives the Arrow schema, with meaning, unit and range in each field's metadata, so
that a Parquet file explains itself (`SELECT * FROM parquet_schema(...)`, or `pyarrow`'s `field.metadata`).
Every write applies the full schema: a column that is all null keeps its type.
"""

import dataclasses
import itertools
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import DamagedTable

Row = TypeVar("Row")

_SCALARS: dict[type, pa.DataType] = {
    str: pa.string(),
    bool: pa.bool_(),  # before int, because a bool is one
    int: pa.int64(),
    float: pa.float64(),
    bytes: pa.binary(),
}
_REQUIRED: Any = dataclasses.MISSING
_RUN_ROWS = 64
"""Rows that a run must have on average to be moved as a slice: shorter ones are gathered in one copy."""


def column(
    doc: str,
    *,
    unit: str = "",
    range: str = "",
    arrow: pa.DataType | None = None,
    default: Any = _REQUIRED,
) -> Any:
    """Describe one column: what it means, its unit, its range, its Arrow type where Python's is too wide."""
    metadata = {"doc": doc, "unit": unit, "range": range, "arrow": arrow}
    if default is _REQUIRED:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _arrow_type(hint: Any) -> tuple[pa.DataType, bool]:
    """Map a Python annotation to (Arrow type, nullable)."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in args if a is not type(None)]
        if len(inner) != 1:
            raise TypeError(f"a column may be `T` or `T | None`, got {hint}")
        return _arrow_type(inner[0])[0], True
    if origin in (list, tuple):
        return pa.list_(_arrow_type(args[0])[0]), False
    if dataclasses.is_dataclass(hint):
        return pa.struct(list(arrow_schema(typing.cast(type, hint)))), False
    if isinstance(hint, type):
        for known, arrow in _SCALARS.items():
            if issubclass(hint, known):  # StrEnum is a str
                return arrow, False
    raise TypeError(f"no Arrow type for {hint}; give `arrow=` in column(...)")


def arrow_schema(row: type) -> pa.Schema:
    """Build the Arrow schema of a row dataclass, documentation included."""
    hints = typing.get_type_hints(row)
    fields = []
    for f in dataclasses.fields(row):
        explicit = f.metadata.get("arrow")
        hint = hints[f.name]
        if explicit is not None:
            kind, nullable = explicit, type(None) in typing.get_args(hint)
        else:
            kind, nullable = _arrow_type(hint)
        notes = {k: str(f.metadata[k]) for k in ("doc", "unit", "range") if f.metadata.get(k)}
        fields.append(pa.field(f.name, kind, nullable=nullable, metadata=notes))
    return pa.schema(fields)


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table's name, its row, its key, and whether it is kept per batch of footage."""

    name: str
    row: type
    key: tuple[str, ...]
    partitioned: bool = True
    doc: str = ""
    scanned: bool = False
    """Read whole and often, a few columns at a time: written for speed of reading, a fifth larger."""

    @property
    def schema(self) -> pa.Schema:
        return arrow_schema(self.row)

    def from_rows(self, rows: Iterable[Any]) -> pa.Table:
        """Rows (dataclass instances or mappings) to Arrow, sorted by key so that equal rows give equal bytes."""
        plain = [_as_dict(r) for r in rows]
        table = pa.Table.from_pylist(plain, schema=self.schema)
        return self.sorted(table)

    def sorted(self, table: pa.Table) -> pa.Table:
        """Order by the key columns; long runs that are in order already are moved, not copied (a film's pictures)."""
        if table.num_rows < 2:
            return table
        keys = table.select(list(self.key))
        order = pc.sort_indices(keys, sort_keys=[(k, "ascending") for k in self.key]).to_numpy()
        breaks = np.flatnonzero(np.diff(order) != 1) + 1
        if not len(breaks):
            return table
        if table.num_rows < _RUN_ROWS * (len(breaks) + 1):
            return table.take(pa.array(order))
        edges = [0, *breaks.tolist(), table.num_rows]
        return pa.concat_tables([table.slice(int(order[a]), b - a) for a, b in itertools.pairwise(edges)])

    def conform(self, table: pa.Table) -> pa.Table:
        """Cast to this table's schema; a missing or extra column is an error that names it."""
        want = set(self.schema.names)
        have = set(table.column_names)
        if want != have:
            raise DamagedTable(
                f"table `{self.name}`: missing columns {sorted(want - have)}, unknown columns {sorted(have - want)}; "
                "it was made by another version of dailies: run the stage that makes it again"
            )
        return table.select(self.schema.names).cast(self.schema)

    def empty(self) -> pa.Table:
        """No rows, full schema."""
        return self.schema.empty_table()


def _as_dict(row: Any) -> dict[str, Any]:
    if isinstance(row, Mapping):
        return dict(row)
    return {f.name: _value(getattr(row, f.name)) for f in dataclasses.fields(row)}


def _value(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _as_dict(value)
    if isinstance(value, (list, tuple)):
        plain = not value or type(value[0]) in _SCALARS  # a curve has as many entries as a film has frames
        return list(value) if plain else [_value(v) for v in value]
    return value


def to_rows(table: pa.Table, row: type[Row]) -> list[Row]:
    """Arrow to row dataclasses; columns the row does not know are left out."""
    names = [f.name for f in dataclasses.fields(typing.cast(Any, row)) if f.name in table.column_names]
    return [row(**r) for r in table.select(names).to_pylist()]
