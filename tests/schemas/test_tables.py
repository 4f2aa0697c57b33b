"""Every table that we ship: a schema, documented columns, a key that exists, rows that survive a round trip."""

import dataclasses
import importlib
import pkgutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

import schemas
from schemas.ids import CHANGED_ONLY, clip_id, digest
from schemas.scores import score_table
from schemas.table import Table


def tables() -> list[Table]:
    modules = [importlib.import_module(f"schemas.{m.name}") for m in pkgutil.iter_modules(schemas.__path__)]
    found = {v.name: v for m in modules for v in vars(m).values() if isinstance(v, Table)}
    return list(found.values())


@pytest.mark.parametrize("table", tables(), ids=lambda t: t.name)
def test_every_column_says_what_it_means(table: Table) -> None:
    assert table.doc
    for field in table.schema:
        assert field.metadata
        assert field.metadata[b"doc"].strip(), f"{table.name}.{field.name} has no meaning"
    assert set(table.key) <= set(table.schema.names)
    assert table.empty().schema.equals(table.schema)


def test_a_score_table_has_null_scores_for_failures() -> None:
    table = score_table("shake", {"shake": ("How shaky.", "px", "[0, inf)")})
    rows = table.from_rows([{"clip_id": "a", "shake": None, "error": "no frames", "made_by": "x"}])
    assert table.name == "score_shake"
    assert rows["shake"].null_count == 1


@given(st.text(), st.integers(-(2**40), 2**40), st.integers(1, 2**40))
def test_a_clip_id_depends_on_span_crop_and_cutter(video: str, start: int, length: int) -> None:
    name = clip_id(video, start, start + length, None, 1)
    assert name == clip_id(video, start, start + length, None, 1)
    others = {
        clip_id(video, start + 1, start + length, None, 1),
        clip_id(video, start, start + length + 1, None, 1),
        clip_id(video, start, start + length, (0, 0, 2, 2), 1),
        clip_id(video, start, start + length, None, 2),
        clip_id(video + "x", start, start + length, None, 1),
    }
    assert name not in others
    assert len(others) == 5


def test_a_setting_that_came_later_counts_where_it_was_changed_and_one_that_changes_nothing_never() -> None:
    @dataclasses.dataclass(frozen=True)
    class Before:
        steps: int = 3

    @dataclasses.dataclass(frozen=True)
    class After(Before):
        device: str = dataclasses.field(default="cpu", metadata=CHANGED_ONLY)
        watched: bool = dataclasses.field(default=False, metadata={"digest": False})

    assert digest(After()) == digest(Before()) == digest(After(watched=True))
    assert digest(After(device="cuda")) not in (digest(Before()), digest(After(device="cuda:1")))


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2, 3]}) == digest({"b": (2, 3), "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
