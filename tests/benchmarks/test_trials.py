"""The bench for choices of the transformer: its code is linear, its data are the trainer's, its numbers move."""

import numpy as np
import pytest

from benchmarks import trials
from trainer.shapes import Compression

SIZES = Compression(space=8, patch=1)


def test_all_components_give_back_every_pixel() -> None:
    clips = [clip for clip, _, _ in trials.scenes(12, 0, 5, SIZES)]
    for balance in (0.0, 1.0):
        code = trials.LinearCode(clips, 8, 192, balance)
        first = code.decode(code.encode(clips[0])[:, :1])
        assert np.abs(first[0].astype(int) - clips[0][0]).max() <= 1


def test_fewer_components_lose_little_and_have_mean_variance_one() -> None:
    clips = [clip for clip, _, _ in trials.scenes(60, 0, 9, SIZES) if len(clip) == 9]
    code = trials.LinearCode(clips, 8, 32, 1.0)
    coded = np.concatenate([code.encode(c)[:, 1:].flatten(1).numpy() for c in clips], axis=1)
    assert coded.var(axis=1).mean() == pytest.approx(1.0, abs=0.01)
    error = np.mean([np.square(code.decode(code.encode(c)).astype(float) - c).mean() for c in clips])
    assert 10 * np.log10(255**2 / error) > 24


@pytest.mark.parametrize("more", ["", " --set plan.image_epochs=1"])
def test_a_trial_ends_with_everything_it_promises(more: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--clips 20 --steps 3 --prompts 4 --set model.size=nano --set model.local=true --set optimizer.kind=muon"
    found = trials.run(trials.arguments().parse_args((words + more).split()))
    assert set(found["seen"]) == {"color", "background", "motion", "shape", "whole"}
    assert list(found["wrong_words"]) == [str(t) for t in (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)]
    assert found["samples"] > 3
    assert "trial: 3/3 steps" in capsys.readouterr().err
