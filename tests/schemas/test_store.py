"""The store's promises: whole tables, content digests, plain globs that are right."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import DamagedTable, MissingTable, RootError
from schemas.store import Store, content_digest
from schemas.table import Table, column


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fruit:
    name: str = column("What it is called.")
    weight_g: float | None = column("How heavy.", unit="g", range="(0, inf)")
    tags: list[str] = column("Words.")


FRUITS = Table("fruits", Fruit, ("name",))
CRATES = Table("crates", Fruit, ("name",), partitioned=False)


def fruits(*names: str) -> pa.Table:
    return FRUITS.from_rows([Fruit(name=n, weight_g=None, tags=[]) for n in names])


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store(tmp_path / "root").create()
    fs = fsspec.filesystem("memory")
    if fs.exists("/store-test"):
        fs.rm("/store-test", recursive=True)
    return Store("memory://store-test").create()


def test_what_was_committed_is_read_back_sorted_by_key(store: Store) -> None:
    store.commit(FRUITS, fruits("pear", "apple"), batch="b1")
    assert store.read(FRUITS, batch="b1")["name"].to_pylist() == ["apple", "pear"]


def test_all_batches_are_read_together_and_listed(store: Store) -> None:
    store.commit(FRUITS, fruits("pear"), batch="b2")
    store.commit(FRUITS, fruits("apple"), batch="b1")
    assert store.batches(FRUITS) == ["b1", "b2"]
    assert store.read(FRUITS).num_rows == 2


def test_the_footer_says_what_made_the_table(store: Store) -> None:
    made = store.commit(CRATES, fruits("fig"), inputs="i", made_by="m", metrics={"seconds": 1.5})
    assert store.committed(CRATES) == made
    assert store.committed(FRUITS, "none") is None


def test_a_column_that_is_all_null_keeps_its_type(store: Store) -> None:
    store.commit(CRATES, fruits("fig"))
    assert store.read(CRATES).schema.field("weight_g").type == pa.float64()


def test_a_plain_glob_reads_the_current_rows_only(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for names in (("a", "b"), ("a",), ("c", "d", "e")):
        store.commit(FRUITS, fruits(*names), batch="b1")
    store.commit(FRUITS, fruits("z"), batch="b2")
    query = f"SELECT name, batch FROM '{tmp_path}/tables/fruits/**/*.parquet' ORDER BY name"
    assert duckdb.sql(query).fetchall() == [("c", "b1"), ("d", "b1"), ("e", "b1"), ("z", "b2")]


def test_columns_document_themselves_in_the_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(CRATES, fruits("fig"))
    field = pq.read_schema(store.table_path(CRATES)).field("weight_g")
    assert field.metadata[b"unit"] == b"g"
    assert field.metadata[b"doc"] == b"How heavy."


def test_equal_rows_have_equal_digests_whatever_their_order_or_chunks() -> None:
    together = fruits("a", "b")
    apart = FRUITS.sorted(pa.concat_tables([fruits("b"), fruits("a")]))
    assert content_digest(together) == content_digest(apart)
    assert content_digest(together) != content_digest(fruits("a", "c"))


def test_a_repeated_key_is_refused(store: Store) -> None:
    with pytest.raises(DamagedTable, match="repeat the key"):
        store.commit(CRATES, fruits("a", "a"))


def test_a_missing_column_is_named(store: Store) -> None:
    with pytest.raises(DamagedTable, match="weight_g"):
        store.commit(CRATES, pa.table({"name": ["a"], "tags": [["x"]]}))


def test_a_table_that_was_never_made_says_so(store: Store) -> None:
    with pytest.raises(MissingTable, match="crates"):
        store.read(CRATES)


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(CRATES, fruits("a"))
    Path(store.table_path(CRATES)).write_bytes(b"PAR1 not really")
    with pytest.raises(DamagedTable, match="run its stage again"):
        store.committed(CRATES)


def test_a_path_cannot_climb_out_of_the_root(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not under the root"):
        Store(tmp_path / "root").at("..", "elsewhere")


def test_a_root_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RootError, match="cannot be written"):
        Store(tmp_path / "file" / "root").create()


def test_a_part_that_was_cut_short_counts_as_not_done(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.part("stage", "key")
    store.write_part(path, fruits("a"))
    assert store.read_part(path) is not None
    Path(path).write_bytes(Path(path).read_bytes()[:-9])
    assert store.read_part(path) is None


KILLED_WRITER = """
import os, sys, threading, time
sys.path.insert(0, {repository!r})
import tests.schemas.test_store as t
from schemas.store import Store
store = Store({root!r})
threading.Thread(target=lambda: (time.sleep({wait}), os.kill(os.getpid(), 9)), daemon=True).start()
rows = t.FRUITS.from_rows([t.Fruit(name=f"{{i:06d}}", weight_g=1.0, tags=["x"]) for i in range(3000)])
print("ready", flush=True)
while True:
    store.commit(t.FRUITS, rows, batch="b1")
"""


@pytest.mark.parametrize("wait", [0.6, 0.75, 0.9])
def test_a_writer_killed_at_any_moment_leaves_a_whole_table(tmp_path: Path, wait: float) -> None:
    store = Store(tmp_path)
    store.commit(FRUITS, fruits("before"), batch="b1")
    script = KILLED_WRITER.format(repository=str(Path(__file__).parents[2]), root=str(tmp_path), wait=wait)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=env)
    assert done.returncode == -9, done.stderr.decode()
    rows = store.read(FRUITS, batch="b1")
    assert rows.num_rows in (1, 3000)
    files = duckdb.sql(f"SELECT count(*) FROM '{tmp_path}/tables/fruits/**/*.parquet'").fetchall()
    assert files == [(rows.num_rows,)]
