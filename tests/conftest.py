"""What tests of several rooms share: one Ray head for the whole session."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration import ray_head
from orchestration.ray_head import RayHead

REPOSITORY = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """One token for all Ray of this run, set before anything imports Ray: a process keeps the first that it finds."""
    config._dailies_ray = folder = Path(tempfile.mkdtemp(prefix="dailies-tests-"))  # type: ignore[attr-defined]
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = ray_head.write_token(folder)


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
