"""The store's promises: whole tables, content digests, plain globs that are right."""

import dataclasses
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import schemas.store as store_module
import schemas.table as table_module
from schemas.captions import Fields, Subject
from schemas.errors import DamagedTable, MissingTable, RootError
from schemas.ids import digest
from schemas.language import UNCHECKED
from schemas.samples import PROMPTS, Prompt
from schemas.store import Store, content_digest
from schemas.table import Table, column, without_empty_texts


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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    a: int = column("A number.")
    b: str | None = column("A word.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    film: str = column("Whose.")
    index: int = column("Which.")
    jpeg: bytes | None = column("It.")
    curve: list[float] = column("Numbers.")
    inner: list[Inner] = column("Rows.")
    good: bool | None = column("A bit.")


PICTURES = Table("pictures", Picture, ("film", "index"))
_PICTURE = st.builds(
    Picture,
    film=st.sampled_from("abc"),
    index=st.integers(0, 10**6),
    jpeg=st.none() | st.binary(max_size=4),
    curve=st.lists(st.floats(0, 1), max_size=3),
    inner=st.lists(st.builds(Inner, a=st.integers(0, 9), b=st.none() | st.text(max_size=2)), max_size=2),
    good=st.none() | st.booleans(),
)


@settings(max_examples=40)
@given(
    pictures=st.lists(_PICTURE, max_size=20, unique_by=lambda p: (p.film, p.index)),
    group=st.integers(1, 12),
    run=st.integers(1, 8),
    cuts=st.lists(st.integers(0, 20), max_size=4),
)
def test_a_digest_tells_of_rows_alone_and_runs_are_sorted_as_rows_are(
    pictures: list[Picture], group: int, run: int, cuts: list[int]
) -> None:
    rows = pa.Table.from_pylist([dataclasses.asdict(p) for p in pictures], schema=PICTURES.schema)
    sorted_rows = rows.sort_by([("film", "ascending"), ("index", "ascending")])
    edges = sorted({0, rows.num_rows, *(c for c in cuts if c < rows.num_rows)})
    chunked = pa.concat_tables([rows.slice(a, b - a) for a, b in itertools.pairwise(edges)] or [rows])
    within = pa.concat_tables([rows, rows]).combine_chunks().slice(rows.num_rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "_DIGEST_ROWS", group)
        patch.setattr(table_module, "_RUN_ROWS", run)
        ordered = PICTURES.sorted(chunked)
        assert ordered.to_pylist() == sorted_rows.to_pylist()
        assert content_digest(chunked) == content_digest(within) == content_digest(rows)
        assert content_digest(ordered) == content_digest(sorted_rows)
        assert (content_digest(ordered) == content_digest(rows)) == (ordered.to_pylist() == rows.to_pylist())


def test_a_table_of_pictures_is_committed_without_another_copy_of_them(tmp_path: Path) -> None:
    store, count, size = Store(tmp_path / "root").create(), 4000, 20_000
    noise = os.urandom(count * size // 4) * 4
    schema = pa.schema(
        [("film", pa.string()), ("index", pa.int64()), ("jpeg", pa.binary()), *list(PICTURES.schema)[3:]]
    )
    pieces = []
    for film, start in (("b", count // 2), ("a", 0)):  # in the wrong order, as parts come
        jpegs = [noise[i * size : (i + 1) * size] for i in range(start, start + count // 2)]
        half = {"film": [film] * len(jpegs), "index": range(len(jpegs)), "jpeg": jpegs}
        half |= {"curve": [[]] * len(jpegs), "inner": [[]] * len(jpegs), "good": [None] * len(jpegs)}
        pieces.append(pa.table(half, schema=schema))
    rows = pa.concat_tables(pieces)
    before = pa.total_allocated_bytes()
    peak = _peak_while(lambda: store.commit(PICTURES, rows, batch="b1"))
    written = pa.concat_tables(pieces[::-1])
    assert (
        store.read(PICTURES, batch="b1", columns=["jpeg"])["jpeg"].combine_chunks() == written["jpeg"].combine_chunks()
    )
    some = [3999, 0, 2000, 0, 1999]
    assert store.take(PICTURES, some, "jpeg", batch="b1") == [written["jpeg"][i].as_py() for i in some]
    assert store.take(PICTURES, [], "jpeg", batch="b1") == []
    assert peak - before < count * size  # some of it at a time, never a copy of all (and not of all twice, as once)


def _peak_while(run: Callable[[], object]) -> int:
    """The most bytes that Arrow held while it ran, looked at every millisecond."""
    peak, done = 0, threading.Event()

    def look() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, pa.total_allocated_bytes())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    return peak


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


def test_what_an_object_store_cannot_hold_lies_on_this_machine_apart_for_each_root(tmp_path: Path) -> None:
    assert Store(tmp_path).on_this_machine("services") == tmp_path / "services"
    one, other = (Store(f"memory://{name}").on_this_machine("work", "dit") for name in ("a", "b"))
    assert one.is_relative_to(Path.home())
    assert one.parts[-2:] == ("work", "dit")
    assert one != other


def _prompts() -> list[Prompt]:
    one = Fields(
        subjects=[
            Subject(shape="star", color="red", size="small", motion="moving up"),
            Subject(shape="circle", color="blue"),
        ],
        relation="left of", events=["moving up", "moving down"], camera="panning left", background="night sky",
    )  # fmt: skip
    two = Fields(subjects=[Subject(shape="star")], events=[])
    return [
        Prompt(prompt_id=f"p{i}", prompt="x", fields=f, width=64, height=64, num_frames=9, seed=i)
        for i, f in enumerate([one, None, two, one, None])
    ]


def test_texts_that_came_later_change_no_digest_where_nobody_says_them() -> None:
    """The literals were computed before records had lighting, style and text on the screen."""
    rows = _prompts()
    assert content_digest(PROMPTS.from_rows(rows)) == "121608b47512e9cca611"
    assert content_digest(PROMPTS.empty()) == "f07ee9e66d43b93a96db"
    assert content_digest(PROMPTS.from_rows([dataclasses.replace(rows[0], fields=None)])) == "206d9ec428e43cb65c3c"
    assert digest(rows[0].fields) == "3a600cd0e9c392baf6d4"
    assert rows[2].fields is not None
    lit = dataclasses.replace(rows[2], fields=dataclasses.replace(rows[2].fields, lighting="dusk"))
    assert content_digest(PROMPTS.from_rows([*rows[:2], lit, *rows[3:]])) != "121608b47512e9cca611"
    assert digest(lit.fields) != digest(rows[2].fields)


def test_a_table_from_before_reads_with_the_texts_that_its_records_lacked(tmp_path: Path) -> None:
    store = Store(tmp_path).create()
    rows = PROMPTS.from_rows(_prompts())
    old = without_empty_texts(rows)
    assert [f.name for f in old.schema.field("fields").type][-1] == "background"
    made = store.commit(PROMPTS, rows)
    with store.fs.open(store.table_path(PROMPTS), "wb") as f:  # as an earlier version wrote it
        pq.write_table(old, f)
    read = store.read(PROMPTS)
    assert read.schema.equals(PROMPTS.schema)
    assert read.to_pylist() == rows.to_pylist()
    with store.fs.open(store.table_path(PROMPTS), "rb") as f:
        assert content_digest(read) == content_digest(pq.ParquetFile(f).read()), "as it was read before"
    assert content_digest(PROMPTS.conform(read)) == made.content
    assert PROMPTS.conform(read).num_rows == 5
    assert store.read(PROMPTS, columns=["prompt_id", "fields"]).to_pylist()[2]["fields"]["lighting"] == ""


def test_a_plain_record_need_not_name_what_came_later(tmp_path: Path) -> None:
    rows = PROMPTS.from_rows(_prompts()).to_pylist()
    for row in rows:
        if row["fields"]:
            row["fields"] = {k: v for k, v in row["fields"].items() if k not in UNCHECKED}
    plain = PROMPTS.from_rows(rows)
    assert plain.to_pylist() == PROMPTS.from_rows(_prompts()).to_pylist()
    assert Store(tmp_path).create().commit(PROMPTS, plain).content == "121608b47512e9cca611"
