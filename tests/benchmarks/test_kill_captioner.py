"""The captioner killed with -9: a few kills of the benchmark that spends twenty in each phase."""

from pathlib import Path

import pytest

from benchmarks.kill_captioner import CAPTIONING, TRAINING, kill_often


@pytest.mark.parametrize("phase", [TRAINING, CAPTIONING])
def test_killed_and_started_again_it_makes_the_same(tmp_path: Path, phase: str) -> None:
    found = kill_often(tmp_path, phase, 2, seed=3, steps=8, clips=6)
    assert found["kills"] >= 2
    assert found["roots_compared"] >= 1
    assert found["roots_that_differ"] == 0
