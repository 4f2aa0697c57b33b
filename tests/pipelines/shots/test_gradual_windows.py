"""The windows that are not looked at could not have been dissolves."""

import numpy as np
import pytest

from pipelines.shots import gradual
from pipelines.shots.gradual import GradualConfig, dissolve_evidence
from pipelines.shots.signals import THUMB_BYTES, SignalCurves


def curves(seed: int) -> SignalCurves:
    """Shots that drift, joined by cuts and by dissolves of many lengths, some of them uneven."""
    rng = np.random.default_rng(seed)
    thumbs = [rng.uniform(30, 220, THUMB_BYTES)]
    for _ in range(8):
        target, length = rng.uniform(30, 220, THUMB_BYTES), int(rng.choice([1, 3, 6, 12, 25]))
        start, bend = thumbs[-1], rng.choice([1.0, 1.0, 1.6])
        thumbs += [start + (target - start) * ((i + 1) / length) ** bend for i in range(length)]
        drift = rng.normal(0, 0.5, THUMB_BYTES)
        thumbs += [thumbs[-1] + drift * (i + 1) for i in range(int(rng.integers(5, 40)))]
    stack = np.clip(np.array(thumbs) + rng.normal(0, 0.7, (len(thumbs), THUMB_BYTES)), 0, 255).astype(np.uint8)
    spread = stack[:, :256].std(axis=1).astype(np.float32) / 255
    zero = np.zeros(len(stack), np.float32)
    return SignalCurves(
        pts=np.arange(len(stack)), luma=zero, contrast=spread, saturation=zero, sharpness=spread**2, difference=zero,
        change=zero, thumbs=stack,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_evidence_is_that_of_looking_at_every_window(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    some = curves(seed)
    quick = dissolve_evidence(some, 25.0, GradualConfig())
    monkeypatch.setattr(gradual, "_plausible", lambda thumbs, total, centre, half, config: np.ones(len(centre), bool))
    assert np.array_equal(quick, dissolve_evidence(some, 25.0, GradualConfig()))
    assert quick.any()
