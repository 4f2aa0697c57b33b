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
from schemas.ids import CHANGED_ONLY

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
    later: bool = False,
) -> Any:
    """Describe one column: what it means, its unit, its range, its Arrow type where Python's is too wide.

    Args:
        later: A text of a record that came after tables were written without it.  Those read as if it were empty, and
            rows that leave it empty have the digests that they would have without it.
    """
    metadata: dict[str, Any] = {"doc": doc, "unit": unit, "range": range, "arrow": arrow}
    if later:
        if default != "":
            raise TypeError("what came later is a text that is empty by default")
        metadata |= {"later": "yes", **CHANGED_ONLY}
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
        notes = {k: str(f.metadata[k]) for k in ("doc", "unit", "range", "later") if f.metadata.get(k)}
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
        return self.sorted(_said_or_empty(pa.Table.from_pylist(plain, schema=self.schema)))

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

    def grown(self, table: pa.Table) -> pa.Table:
        """A table that an earlier version wrote, with the texts that its records lacked; others as they are."""
        for at, field in enumerate(table.schema):
            if field.name not in self.schema.names:
                continue
            want = self.schema.field(field.name).type
            if (later := _later(want)) and pa.types.is_struct(field.type):
                missing = {f.name for f in want} - {f.name for f in field.type}
                if missing and missing <= set(later):
                    table = _with_texts(table, at, want)
        return table

    def empty(self) -> pa.Table:
        """No rows, full schema."""
        return self.schema.empty_table()


def _later(kind: pa.DataType) -> list[str]:
    """Texts of a record that came later (`column(later=True)`)."""
    return [f.name for f in kind if b"later" in (f.metadata or {})] if pa.types.is_struct(kind) else []


def _replaced(table: pa.Table, at: int, fields: list[pa.Field], parts: list[Any]) -> pa.Table:
    """The table with other fields in a column of records, null where it was null."""
    mask = table.column(at).combine_chunks().is_null()
    records = pa.StructArray.from_arrays(parts, fields=fields, mask=mask)
    return table.set_column(at, table.schema.field(at).with_type(records.type), records)


def _with_texts(table: pa.Table, at: int, kind: pa.StructType) -> pa.Table:
    """A column of records with what they lack; what they have keeps its type to the name of a list's element."""
    records = table.column(at).combine_chunks()
    had = {f.name: (f, records.field(i)) for i, f in enumerate(records.type)}
    both = [had.get(f.name) or (f, pa.repeat(pa.scalar("", f.type), len(records))) for f in kind]
    return _replaced(table, at, [f for f, _ in both], [part for _, part in both])


def _said_or_empty(table: pa.Table) -> pa.Table:
    """Texts that came later are empty where a plain record does not name them."""
    for at, field in enumerate(table.schema):
        if later := _later(field.type):
            records = table.column(at).combine_chunks()
            there, parts = records.is_valid(), []
            for f in field.type:
                part = records.field(f.name)
                gap = pc.and_(there, part.is_null()) if f.name in later else None
                parts.append(part if gap is None else pc.if_else(gap, pa.scalar("", f.type), part))
            table = _replaced(table, at, list(field.type), parts)
    return table


def without_empty_texts(table: pa.Table) -> pa.Table:
    """The table as it would be without the texts that came later, where no row says one: what digests are of."""
    for at, field in enumerate(table.schema):
        if later := _later(field.type):
            records = table.column(at).combine_chunks()
            kept = [f for f in field.type if f.name not in later or _says(records.field(f.name))]
            table = _replaced(table, at, kept, [records.field(f.name) for f in kept])
    return table


def _says(texts: pa.Array) -> bool:
    return bool(pc.any(pc.not_equal(pc.fill_null(texts, ""), "")).as_py())


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
