"""What tests of several rooms share: one Ray head, and one root with every table in it.

Tests run on two workers (`pytest -n 2`).  A file's tests stay together on one of them, since many share a fixture
of their file; so do all that need the Ray head, and all that read the house, for each is made once in every worker
that asks for it.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from orchestration import ray_head
from orchestration.ray_head import RayHead

REPOSITORY = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """One token for all Ray of this run, set before anything imports Ray: a process keeps the first that it finds.

    No drawn example has a deadline: what a busy machine takes says nothing about the code.
    """
    settings.register_profile("dailies", deadline=None)
    settings.load_profile("dailies")
    config._dailies_ray = folder = Path(tempfile.mkdtemp(prefix="dailies-tests-"))  # type: ignore[attr-defined]
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = ray_head.write_token(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name the group of each test; the longest groups come first, so that no worker starts one at the very end."""
    shared: dict[str, str] = {}
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "cluster" in fixtures or item.get_closest_marker("ray") is not None:
            shared[_file(item)] = "ray"
        elif "house" in fixtures:
            shared.setdefault(_file(item), "house")
    for item in items:
        item.add_marker(pytest.mark.xdist_group(shared.get(_file(item), _file(item))))
    order = {"ray": 0, "house": 1}
    items.sort(key=lambda item: order.get(shared.get(_file(item), ""), 2))


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config._dailies_ray, ignore_errors=True)  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def _head(request: pytest.FixtureRequest) -> Iterator[RayHead]:
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    env = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    head = ray_head.start(request.config._dailies_ray, num_cpus=2, env=env)  # type: ignore[attr-defined]
    yield head
    import ray

    ray.shutdown()
    ray_head.end(head)


@pytest.fixture
def cluster(_head: RayHead, monkeypatch: pytest.MonkeyPatch) -> RayHead:
    """A real head on loopback with two CPUs, shared by all tests: booting one takes 10 to 40 s."""
    for name, value in _head.env().items():
        monkeypatch.setenv(name, value)
    return _head


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with every table in it, from rendered footage to samples; made once per session, and read only."""
    from tests.house import bring_up_to_date

    root = tmp_path_factory.mktemp("house")
    bring_up_to_date(root)
    return root
