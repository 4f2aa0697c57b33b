"""Loss of each arm on clips that no arm was trained on, with intervals over clips and differences from the first arm's.

The validation grid (`trainer/validate.py`): the same clips, noise levels, tasks and noise for all.  A clip's number is
the mean over its cells.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestration.experiments.bench import Bench, Run, of_arm
from orchestration.experiments.report import as_dict
from schemas.errors import UsageError

if TYPE_CHECKING:
    from trainer.validate import ValidationConfig

INTERVAL = "95 %, percentile bootstrap over held-out clips; differences over the same clips"


def held_out(on: Bench, share: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows to train on and rows to validate on, by the clips' ids alone.

    Raises:
        UsageError: If the share leaves none on either side.
    """
    from trainer.validate import is_held_out

    if not 0 < share < 1:
        raise UsageError(f"--holdout lies between 0 and 1, got {share:g}")
    held = [r for r in on.rows if is_held_out(r["clip_id"], share)]
    rows = [r for r in on.rows if not is_held_out(r["clip_id"], share)]
    if len(held) < 2 or not rows:
        raise UsageError(
            f"--holdout {share:g} leaves {len(held)} of {len(on.rows)} clips to validate on and {len(rows)} to train "
            "on: two and one are needed"
        )
    return rows, held


def at_the_end(steps: int, clips: int) -> "ValidationConfig":
    """One look, after the last step."""
    from trainer.validate import ValidationConfig

    if clips < 2:
        raise UsageError(f"--clips is at least 2, got {clips}: an interval needs them")
    return ValidationConfig(every=steps, clips=clips)


def measured(on: Bench, runs: Sequence[Run], names: Sequence[str]) -> list[dict[str, Any]]:
    """Of each arm: `validation_loss`, `loss_against_first`, and `loss_by_level`."""
    from trainer.experiments.intervals import difference, mean

    base: np.ndarray | None = None
    found = []
    for name in names:
        by_clip, by_level = _losses(on, of_arm(runs, name))
        base = by_clip if base is None else base
        found.append(
            {
                "validation_loss": as_dict(mean(by_clip)),
                "loss_against_first": as_dict(difference(by_clip, base)),
                "loss_by_level": by_level,
                "loss_of_clips": [float(f"{v:.6g}") for v in by_clip],
            }
        )
    return found


def _losses(on: Bench, runs: Sequence[Run]) -> tuple[np.ndarray, dict[str, float]]:
    """One loss per clip, in the order of their ids, and one per noise level; means over an arm's seeds."""
    clips: dict[str, list[float]] = {}
    levels: dict[str, list[float]] = {}
    for run in runs:
        for row in run.trained.validation(on.store).to_pylist():
            clips.setdefault(row["clip_id"], []).append(row["loss"])
            levels.setdefault(f"{row['t']:g}", []).append(row["loss"])
    by_level = {k: float(np.mean(v)) for k, v in sorted(levels.items())}
    return np.array([np.mean(clips[c]) for c in sorted(clips)]), by_level
