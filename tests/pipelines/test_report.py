"""The report: one page that holds everything it shows, is honest about its models, and is the same again."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipelines.execute import run_stage
from pipelines.report import page as report_page
from pipelines.report import stage as report
from schemas import batches
from schemas.report import REPORT
from schemas.store import Store
from tests.orchestration import films


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return films.root(tmp_path / "root")


def page(store: Store) -> str:
    return store.read_bytes(*report.PAGE.split("/")).decode()


class Links(HTMLParser):
    """What a page refers to, and whether its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outside += [
            v for k, v in attrs if k in ("src", "href") and v and not v.startswith(("data:image/jpeg", "#"))
        ]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opens and closes in one."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_holds_everything_it_shows(store: Store) -> None:
    run_stage(report.STAGE, store, None)
    text = page(store)
    links = Links()
    links.feed(text)
    assert links.outside == []
    assert links.open == []
    assert "<script" not in text
    for word in ("kept by the policy", "sharpness 0.1 is below 0.2", "moov atom not found", "no such size", "0.97"):
        assert word in text
    assert "A &lt;red&gt; disc rolls left." in text, "text from files is escaped"
    assert "b&lt;i&gt;.mp4" in text
    assert text.count("data:image/jpeg") == 8, "up to three frames of each of two clips and of one sample"
    assert "64x48, 5 frames: a blue disc" in text


def test_rows_say_what_is_on_the_page(store: Store) -> None:
    result = run_stage(report.STAGE, store, None)
    rows = {r["section"]: r for r in store.read(REPORT).to_pylist()}
    assert rows["Kept clips and their captions"]["pictures"] == 3
    assert rows["Rules"]["rows"] == 2
    assert {r["page"] for r in rows.values()} == {report.PAGE} == {result.metrics["page"]}


def test_models_that_know_only_the_synthetic_world_are_said_to(tmp_path: Path) -> None:
    real, rendered = films.root(tmp_path / "real"), films.root(tmp_path / "rendered", batches.SYNTHETIC)
    for store in (real, rendered):
        run_stage(report.STAGE, store, None)
    assert "name real models" in page(real)
    assert "name real models" not in page(rendered)
    assert "know nothing else" in page(rendered)


def test_the_same_tables_give_the_same_page(store: Store, tmp_path: Path) -> None:
    run_stage(report.STAGE, store, None)
    first = page(store)
    assert run_stage(report.STAGE, store, None).computed is False
    run_stage(report.STAGE, store, None, force=True)
    assert page(store) == first
    other = films.root(tmp_path / "elsewhere")
    run_stage(report.STAGE, other, None)
    assert page(other) == first


def test_an_empty_root_has_a_page_too(tmp_path: Path) -> None:
    store = Store(tmp_path).create()
    run_stage(report.STAGE, store, None)
    assert "Batches: none" in page(store)


def test_pieces_of_nothing_are_nothing() -> None:
    assert report_page.table(("a",), []) == ""
    assert report_page.funnel([]) == ""
    assert report_page.strips([([], "no pictures")]) == ""
    assert report_page.curve([(0.0, 1.0)], "one point") == ""
    assert "polyline" in report_page.curve([(0.0, 1.0), (1.0, 1.0)], "flat")
