"""Which manifest rows are trained on, and why the others are not: every row ends in one of the two lists.

A run may name the manifest that it expects (`dit.manifest`, a digest or how it begins) and take a part of it with an
SQL condition over its columns (`dit.where`), which DuckDB answers on the rows alone: no file can be opened from it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from schemas.errors import ConfigError

Row = dict[str, Any]
_OF_MANIFEST = ("manifest", "batch", "short", "dense", "weight")
_MAY_HAVE = ("fields", "human")


def choose(
    manifest: pa.Table,
    latents: Sequence[Mapping[str, Any]],
    *,
    where: str = "",
    expected: str = "",
    budget: int | None = None,
) -> tuple[list[Row], dict[str, str]]:
    """Rows to train on (the latent's with the manifest's captions), and clip to reason for the others.

    Args:
        where: SQL condition over the manifest's columns; rows that do not meet it are left out.
        expected: Digest of the manifest, or how it begins; empty takes the current one.
        budget: Tokens that a pack holds.

    Raises:
        ConfigError: If the manifest is another one, or the condition is no condition.
    """
    rows = manifest.to_pylist()
    current = rows[0]["manifest"] if rows else ""
    if expected and not current.startswith(expected):
        raise ConfigError(
            f"training was asked for manifest `{expected}`, and this root's current one is `{current or 'empty'}`: "
            "freeze that one again, or name the current one (`dailies manifest list` shows all)"
        )
    wanted = meets(manifest, where) if where else None
    by_clip = {r["clip_id"]: r for r in latents}
    chosen: list[Row] = []
    skipped: dict[str, str] = {}
    for row in sorted(rows, key=lambda r: r["clip_id"]):
        reason = _reason(row, by_clip.get(row["clip_id"]), wanted, where, budget)
        if reason:
            skipped[row["clip_id"]] = reason
        else:
            chosen.append({**by_clip[row["clip_id"]], **{k: row[k] for k in _OF_MANIFEST}, **_more(row)})
    return chosen, skipped


def _more(row: Row) -> Row:
    """What older manifests lack."""
    return {k: row[k] for k in _MAY_HAVE if k in row}


def _reason(row: Row, latent: Mapping[str, Any] | None, wanted: set[str] | None, where: str, budget: int | None) -> str:
    if wanted is not None and row["clip_id"] not in wanted:
        return f"does not meet `{where}`"
    if latent is None:
        return "no latent row: run stage `latents` again"
    if latent["status"] != "ok":
        return f"latent {latent['status']}: {latent['reason']}"
    if budget is not None and latent["tokens"] > budget:
        return f"{latent['tokens']} tokens do not fit a pack of {budget}: raise dit.plan.budget"
    return "" if row["dense"] else "no caption"


def meets(manifest: pa.Table, where: str, called: str = "dit.where") -> set[str]:
    """Clips whose manifest row meets an SQL condition.

    Args:
        called: What the condition is called in errors.

    Raises:
        ConfigError: If it is not one condition over the manifest's columns.
    """
    with duckdb.connect(":memory:") as connection:
        connection.register("manifest", manifest)
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        try:
            statements = connection.extract_statements(f"SELECT clip_id FROM manifest WHERE ({where}\n)")  # noqa: S608
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise ConfigError(f"`{called}` is one SQL condition over the manifest's columns, got `{where}`")
            return {clip_id for (clip_id,) in connection.execute(statements[0]).fetchall()}
        except duckdb.Error as e:
            columns = ", ".join(manifest.column_names)
            raise ConfigError(f"`{called}` = `{where}`: {' '.join(str(e).split())}; columns: {columns}") from e
