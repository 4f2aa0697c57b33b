"""The caption gate: rules over what was measured of a caption decide whether its clip goes into the manifest.

The same rules as the policy's (`pipelines.policy.rules`), over `caption_scores` (CLIP, sentence by sentence) and
`caption_claims` (the counterfactual test): measured first, decided here, so that a bound moves without a model.  A
rule over something that was not measured of a clip passes it by and says so.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.policy.rules import Rule, judge, move_bound
from schemas.errors import ConfigError
from schemas.verdicts import VerdictRow

OF_CLAIMS = ("supported", "contradicted", "unverifiable", "contradicted_share", "worst_gap")
OF_SCORES = ("short_score", "dense_mean", "dense_min")
COLUMNS = (*(f"caption_claims.{n}" for n in OF_CLAIMS), *(f"caption_scores.{n}" for n in OF_SCORES))
NOT_MEASURED = "not measured of this caption"
CAPTION_RULES: tuple[Rule, ...] = (
    Rule(
        name="contradicted",
        column="caption_claims.contradicted_share",
        max=0.5,
        reason="the clip contradicts most of its caption",
    ),
)
"""Half: what is contradicted is struck out anyway; a caption that is mostly wrong is about something else."""


def gate_rules(rules: Sequence[Rule], bounds: Sequence[str]) -> tuple[Rule, ...]:
    """The rules with their bounds moved.

    Raises:
        ConfigError: If a bound names no rule, or a rule reads what no stage measures of a caption.
    """
    found = tuple(rules)
    for text in bounds:
        found = move_bound(found, text)
    for rule in found:
        if rule.column not in COLUMNS:
            raise ConfigError(f"caption rule `{rule.name}` reads `{rule.column}`; there are {', '.join(COLUMNS)}")
    return found


def judged(
    clip_id: str,
    scores: Mapping[str, float],
    claims: Mapping[str, Any] | None,
    rules: Sequence[Rule],
    made_by: str,
) -> list[VerdictRow]:
    """One row per rule.

    Args:
        scores: `table.column` to value, `caption_scores` among them.
        claims: The clip's row of `caption_claims`; None if it has none.
    """
    known: dict[str, float] = {n: scores[n] for n in COLUMNS if n in scores}
    if claims is not None and not claims["reason"]:
        known |= {f"caption_claims.{n}": float(claims[n]) for n in OF_CLAIMS if claims[n] is not None}
    skip = {rule.name: NOT_MEASURED for rule in rules if rule.column not in known}
    return judge(clip_id, known, rules, skip, made_by)
