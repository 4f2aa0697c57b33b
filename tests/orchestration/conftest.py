"""The toy rooms in place of the real ones."""

import os
from pathlib import Path

import pytest

from tests.orchestration import toys

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def toy_rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy stages instead of the real rooms, in this process and in those it starts."""
    monkeypatch.setenv("DAILIES_ROOMS", toys.__name__)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("DAILIES_ROOT", raising=False)
