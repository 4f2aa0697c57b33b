"""The list of all stages: complete, in an order that works, steered by recipes that exist."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration import recipes, rooms
from pipelines.execute import Stage
from schemas import batches
from schemas.errors import ConfigError
from schemas.store import Store
from tests.orchestration import toys

REPOSITORY = Path(__file__).parents[2]


def test_every_stage_comes_after_those_whose_tables_it_reads() -> None:
    seen: set[str] = set()
    for placed in rooms.all_stages():
        assert set(placed.after) <= seen, placed.name
        makers = {t.name: p.name for p in rooms.all_stages() for t in p.stage.writes}
        read = {makers[t.name] for t in placed.stage.reads if t.name in makers}
        assert read <= set(placed.after)
        seen.add(placed.name)


def test_every_table_that_is_read_is_made_by_exactly_one_stage() -> None:
    made = [t.name for p in rooms.all_stages() for t in p.stage.writes]
    assert len(made) == len(set(made))
    for placed in rooms.all_stages():
        assert {t.name for t in placed.stage.reads} <= set(made), placed.name


def test_the_architecture_page_names_the_stages_that_there_are() -> None:
    page = (REPOSITORY / "docs/architecture.md").read_text()
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert {p.name for p in rooms.all_stages()} <= set(rows)


@pytest.mark.parametrize("name", sorted(recipes.RECIPES))
def test_every_stage_finds_its_settings_in_every_recipe(name: str) -> None:
    recipe = recipes.recipe(name)
    for placed in rooms.all_stages():
        placed.stage.settings(placed.config(recipe))


def test_footage_is_rendered_before_it_is_probed() -> None:
    names = [p.name for p in rooms.all_stages()]
    assert names.index("footage") < names.index("videos")


def test_real_footage_is_not_rendered() -> None:
    kinds = {
        kind: [p.name for p in rooms.for_batch(rooms.all_stages(), kind)]
        for kind in (batches.SYNTHETIC, batches.FOOTAGE)
    }
    assert set(kinds[batches.SYNTHETIC]) - set(kinds[batches.FOOTAGE]) == {"footage"}


def test_a_circle_of_tables_is_refused() -> None:
    first = Stage("first", 1, (toys.JUICE,), (toys.PRESS,), toys.make_press, lambda s: s)
    second = Stage("second", 1, (toys.PRESS,), (toys.JUICE,), toys.press, lambda s: s)
    with pytest.raises(ValueError, match="cycle"):
        rooms.place([("toy", s, lambda r: r) for s in (first, second)])


def test_units_are_stages_times_batches(tmp_path: Path, toy_rooms: None) -> None:
    store = toys.root(tmp_path, "b1")
    batches.register(store, batches.Batch(name="real", folder=str(tmp_path), kind=batches.FOOTAGE))
    found = [(p.name, b) for p, b in rooms.units(rooms.all_stages(), store)]
    assert found == [("press", None), ("footage", "b1"), ("weigh", "b1"), ("weigh", "real"), ("juice", None)]
    with pytest.raises(ConfigError, match="dailies curate"):
        rooms.units(rooms.all_stages(), Store(tmp_path / "empty").create())


def test_a_misspelt_stage_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean `verdicts`"):
        rooms.named("verdict")


def test_the_recipe_of_a_root_is_remembered(tmp_path: Path) -> None:
    store = Store(tmp_path).create()
    assert recipes.remembered(tmp_path) == (None, ())
    recipes.remember(store, "footage", ["curation.scan.proxy_fps=4"])
    assert recipes.remembered(tmp_path) == ("footage", ("curation.scan.proxy_fps=4",))


def test_the_command_and_the_code_location_load_without_models_or_clusters() -> None:
    code = (
        "import sys, orchestration.cli, orchestration.run_commands as c; from orchestration import rooms, recipes;"
        "rooms.all_stages(); recipes.recipe('demo');"
        "dagster = 'dagster' in sys.modules; import orchestration.definitions as d; d.defs();"
        "print(dagster, [m for m in ('torch', 'ray', 'transformers', 'open_clip', 'diffusers', 'scenedetect') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "False []"


def test_no_file_of_orchestration_postpones_annotations() -> None:
    """Dagster reads them at import; postponed ones it cannot resolve."""
    files = sorted((REPOSITORY / "orchestration").rglob("*.py"))
    assert len(files) > 15
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.module == "__future__"), path
