"""Presets: policies with the thresholds that others publish, one TOML file each, named by its source.

A published threshold is applied only where a score of ours measures the same thing; every other one is kept as
`[[not_applied]]` with the reason, becomes a verdict row `skipped`, and is listed by `dailies whatif`.  A rule
over a column that this installation does not write is turned into one as well.  Numbers and where they come from
are in each file's `source`; ours are measured otherwise (rows of strokes, not OCR boxes), so look at the clips
beside a threshold before you rely on it.
"""

import dataclasses
import tomllib
from importlib import resources
from typing import Any

from pipelines.policy.rules import PRESET, Rule, parse_policy
from schemas.errors import ConfigError
from schemas.settings import pick


def names() -> list[str]:
    """All presets, sorted."""
    return sorted(f.name.removesuffix(".toml") for f in resources.files(__name__).iterdir() if f.name.endswith(".toml"))


def describe(name: str) -> dict[str, Any]:
    """A preset as it stands in its file."""
    pick("preset", name, dict.fromkeys(names()))
    return tomllib.loads((resources.files(__name__) / f"{name}.toml").read_text("utf-8"))


def rules(name: str) -> tuple[Rule, ...]:
    """A preset's rules; those over columns that no stage here writes decide nothing and say so.

    Raises:
        ConfigError: If there is no such preset, with the nearest one there is.
    """
    from pipelines.policy.scoreboard import COLUMNS

    found = describe(name)
    try:
        known = parse_policy(found)
    except (ValueError, TypeError) as e:
        raise ConfigError(f"{PRESET}{name}: {e}") from e
    return tuple(
        r
        if r.not_applied or r.column in COLUMNS
        else dataclasses.replace(r, not_applied=f"not applied: no stage of this installation writes `{r.column}`")
        for r in known
    )
