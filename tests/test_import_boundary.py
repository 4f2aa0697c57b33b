"""The architecture as two small tables.  They fail when it bends (docs/architecture.md)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ROOMS = ("schemas", "pipelines", "captioner", "trainer", "orchestration")
MAY_IMPORT = {
    "schemas": (),
    "pipelines": ("schemas",),
    "captioner": ("schemas", "pipelines.video", "pipelines.execute"),
    "trainer": ("schemas", "pipelines.video", "pipelines.execute"),
    "orchestration": ("schemas", "pipelines", "captioner", "trainer"),
}
ONLY_IN = {
    "ray": ("pipelines/running/executors.py", "orchestration/ray_jobs.py", "trainer/launch.py"),
    "dagster": ("orchestration/",),
    "av": ("pipelines/video/",),
    "ffmpeg": ("pipelines/video/",),
    "imageio_ffmpeg": ("pipelines/video/",),
}
HEAVY = ("ray", "torch", "torchvision", "transformers", "diffusers", "open_clip", "scenedetect", "cv2")
LIGHT_ROOMS = ("schemas", "pipelines", "orchestration")


def imports(source: str) -> Iterator[tuple[str, bool]]:
    """Yield (module, is at module level) for every import of a file, those inside functions too."""
    tree = ast.parse(source)
    inside = {
        id(n)
        for f in ast.walk(tree)
        if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for n in ast.walk(f)
    }
    typing_only = {
        id(n)
        for f in ast.walk(tree)
        if isinstance(f, ast.If) and "TYPE_CHECKING" in ast.dump(f.test)
        for n in ast.walk(f)
    }
    for node in ast.walk(tree):
        top = id(node) not in inside and id(node) not in typing_only
        if isinstance(node, ast.Import):
            yield from ((name.name, top) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who imports whom"
            # `from pipelines import video` imports pipelines.video
            yield from ((f"{node.module}.{name.name}", top) for name in node.names)


def within(module: str, allowed: str) -> bool:
    return module == allowed or module.startswith(allowed + ".")


def violations(path: str, source: str) -> list[str]:
    """Say every way in which a file at `path` (relative to the repository) breaks the tables."""
    room = path.split("/")[0]
    found = []
    for module, top in imports(source):
        package = module.split(".")[0]
        if package in ROOMS and package != room and not any(within(module, a) for a in MAY_IMPORT[room]):
            found.append(f"{path} imports {module}; {room} may import {MAY_IMPORT[room] or 'none of ours'}")
        if package in ONLY_IN and not path.startswith(ONLY_IN[package]):
            found.append(f"{path} imports {package}; only {ONLY_IN[package]} may")
        if top and package in HEAVY and room in LIGHT_ROOMS:
            found.append(f"{path} imports {package} at module level; import it inside the function that needs it")
    return found


def sources() -> list[Path]:
    return sorted(p for room in ROOMS for p in (REPOSITORY / room).rglob("*.py"))


def test_every_import_keeps_to_the_tables() -> None:
    assert len(sources()) > 30
    found = [v for p in sources() for v in violations(p.relative_to(REPOSITORY).as_posix(), p.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source", "word"),
    [
        ("schemas/x.py", "from pipelines import execute", "none of ours"),
        ("captioner/x.py", "import trainer.plan", "captioner may import"),
        ("captioner/x.py", "from pipelines import policy", "captioner may import"),
        ("trainer/x.py", "def f():\n    from captioner import parse", "trainer may import"),
        ("pipelines/x.py", "import orchestration.cli", "pipelines may import"),
        ("pipelines/stages.py", "def f():\n    import ray", "only"),
        ("captioner/x.py", "import av", "only"),
        ("trainer/x.py", "import dagster as dg", "only"),
        ("orchestration/x.py", "import torch", "module level"),
    ],
)
def test_a_planted_violation_is_found(path: str, source: str, word: str) -> None:
    found = violations(path, source)
    assert len(found) == 1
    assert word in found[0]


def test_what_the_tables_allow_passes() -> None:
    assert not violations("captioner/x.py", "from pipelines.video import frames\nfrom schemas.table import Table")
    assert not violations("pipelines/running/executors.py", "def f():\n    import ray")
    assert not violations("trainer/x.py", "import torch")


def test_no_room_for_leftovers() -> None:
    bad = {"utils", "misc", "common", "helpers"}
    assert not [p for p in sources() if p.stem in bad or bad & set(p.parts)]
