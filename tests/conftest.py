"""What tests of several rooms share: one Ray head for the whole session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration import ray_head
from orchestration.ray_head import RayHead

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def _head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHead]:
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    head = ray_head.start(tmp_path_factory.mktemp("ray"), num_cpus=2, env={"PYTHONPATH": path, "OMP_NUM_THREADS": "1"})
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
