"""The policy: rules over scores give verdicts, in one pure pass; scorers only measure.

A rule names a score and its bounds.  Every clip gets one row per rule with score, bounds and reason, so
that a rejection can be audited and a threshold moved without decoding anything.  A score that is missing
because its scorer failed is an error, never a rejection (peers give such clips a score of -1 and count
them as filtered).  After Step-Video (arXiv:2502.10248), which scored everything first and sliced
thresholds afterwards.

Policies live in code (`CLASSICAL`), in a TOML file, or in one that comes with the package and is named
`preset:NAME` (pipelines/policy/presets):

    [[rule]]
    name = "blur"
    column = "score_blur.edge"
    min = 0.09
    reason = "out of focus"

    [[not_applied]]                     # a published threshold on a score that nobody here measures
    name = "aesthetic"
    min = 4.5
    why = "needs the LAION head"
"""

import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.scorers.clip import SPARSE
from schemas.errors import ConfigError
from schemas.settings import pick
from schemas.verdicts import Selection, Verdict, VerdictRow

Scores = Mapping[str, float | None]
MOST_RULES = 62
"""What-if keeps one bit per rule."""
PRESET = "preset:"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Keeps a clip whose score lies within its bounds, both included."""

    name: str
    column: str
    """`table.column`."""
    reason: str
    """Why a clip outside the bounds is rejected, in words."""
    min: float | None = None
    """Smallest score that is kept; None if unbounded."""
    max: float | None = None
    """Largest score that is kept; None if unbounded."""
    not_applied: str = ""
    """Why the rule decides nothing (no stage measures its score); it stays on the list for all to see."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"a rule's name is made of letters, digits, '.', '_' and '-', got `{self.name}`")
        if self.not_applied:
            return
        if self.min is None and self.max is None:
            raise ValueError(f"rule `{self.name}` has neither min nor max")
        if any(b is not None and b != b for b in (self.min, self.max)):
            raise ValueError(f"rule `{self.name}`: a bound is not a number")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"rule `{self.name}`: min {self.min} is above max {self.max}")
        if self.column.count(".") != 1:
            raise ValueError(f"rule `{self.name}`: column is `table.column`, got `{self.column}`")


CLASSICAL: tuple[Rule, ...] = (
    Rule(name="too_short", column="score_duration.seconds", min=2.0, reason="shorter than the shortest clip"),
    Rule(name="damaged", column="scans.damaged_share", max=0.001, reason="overlaps a span that did not decode"),
    Rule(name="missed_cut", column="clips.max_inner_boundary", max=0.5, reason="a cut may have been missed inside it"),
    Rule(name="dark", column="score_luma.bright", min=0.15, reason="too dark"),
    Rule(name="blur", column="score_blur.focus", min=0.265, reason="out of focus"),
    Rule(name="freeze", column="score_freeze.longest_share", max=0.25, reason="the picture stands still and repeats"),
    Rule(name="static", column="score_motion.moving_share", min=0.004, reason="nothing moves"),
    Rule(name="flicker", column="score_flicker.amplitude", max=0.05, reason="brightness flickers"),
    Rule(name="text", column="score_text.area", max=0.019, reason="text is burnt in"),
    Rule(name="watermark", column="score_overlay.corner", max=0.6, reason="a mark stands still in a corner"),
    Rule(name="near_duplicate", column="duplicates.cosine", max=0.5, reason="nearly the same as a clip that is kept"),
)
"""Rules over classical scores.  Thresholds were chosen on seeds 11 and 12 of synthetic footage (616 clips), those
on text and marks with an eye on real footage; `dailies selftest` measures them on a seed of its own."""

WITH_CLIP: tuple[Rule, ...] = (
    *CLASSICAL,
    Rule(
        name="incoherent",
        column="score_clip.first_to_last",
        min=0.0,
        reason="its end has nothing to do with its beginning",
    ),
)
"""The same, and what CLIP says of the clip's coherence."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """Which rules decide."""

    rules: tuple[Rule, ...] = CLASSICAL
    """The rules, in the order in which reasons are given."""
    file: str = ""
    """A TOML file of rules that replaces them, or `preset:NAME`; empty for none."""
    bounds: tuple[str, ...] = ()
    """Bounds moved on top, each `rule.min=0.3`, `rule.max=0.5`, `table.column.min=0.3` (a new rule) or `rule=off`."""

    def __post_init__(self) -> None:
        names = [r.name for r in self.rules]
        if len(set(names)) != len(names):
            raise ValueError(f"rule names must differ, got {names}")
        if len(names) > MOST_RULES:
            raise ValueError(f"a policy has at most {MOST_RULES} rules, got {len(names)}")

    def resolved(self) -> tuple[Rule, ...]:
        """The rules that hold, after the file and the moved bounds."""
        rules = read_policy(self.file) if self.file else self.rules
        for text in self.bounds:
            rules = move_bound(rules, text)
        return rules


def read_policy(path: str) -> tuple[Rule, ...]:
    """Read rules from a TOML file, or from the preset of that name.

    Raises:
        ConfigError: If the file is absent or a rule in it is wrong.
    """
    if path.startswith(PRESET):
        from pipelines.policy.presets import rules as preset

        return preset(path.removeprefix(PRESET))
    try:
        with open(path, "rb") as f:
            return parse_policy(tomllib.load(f))
    except (OSError, ValueError, TypeError) as e:
        raise ConfigError(f"policy file {path}: {e}") from e


def parse_policy(found: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Rules out of what TOML gave: those that decide, then those that cannot and why.

    Raises:
        ValueError, TypeError: If it is no policy; says what is wrong.
    """
    strange = set(found) - {"rule", "not_applied", "source", "about"}
    if strange:
        raise ValueError(f"unknown tables {sorted(strange)}; a policy holds [[rule]] and [[not_applied]]")
    rules = [Rule(**r) for r in found.get("rule", [])]
    for entry in found.get("not_applied", []):
        plain = dict(entry)
        why = str(plain.pop("why"))
        rules.append(Rule(**{"column": "", "reason": "", **plain, "not_applied": f"not applied: {why}"}))
    return PolicyConfig(rules=tuple(rules)).rules


def move_bound(rules: tuple[Rule, ...], text: str) -> tuple[Rule, ...]:
    """Apply one `rule.min=0.3`, `rule.max=none`, `table.column.max=0.5` or `rule=off`.

    Raises:
        ConfigError: If there is no such rule, with the nearest one there is, or the bound is none.
    """
    left, equals, value = text.partition("=")
    name, dot, side = left.strip().rpartition(".")
    value = value.strip().lower()
    if not equals or (dot and side not in ("min", "max")) or not (dot or value == "off"):
        pick("rule", name or side, {r.name: r for r in rules})  # a wrong name is the likelier mistake
        raise ConfigError(f"a bound is `rule.min=0.3`, `rule.max=0.5` or `rule=off`, got `{text}`")
    if not dot:
        gone = pick("rule", side, {r.name: r for r in rules})
        return tuple(r for r in rules if r is not gone)
    try:
        bound = None if value == "none" else float(value)
        if "." in name and name not in {r.name for r in rules}:
            rules = (*rules, Rule(name=name, column=name, reason=f"by {name}", **{side: bound}))  # type: ignore[arg-type]
        moved: dict[str, Any] = {side: bound}
        old = pick("rule", name, {r.name: r for r in rules})
        return tuple(dataclasses.replace(r, **moved) if r is old else r for r in rules)
    except ConfigError:
        raise
    except ValueError as e:
        raise ConfigError(f"`{text}`: {e}") from e


def judge(
    clip_id: str, scores: Scores, rules: Sequence[Rule], skip: Mapping[str, str], made_by: str
) -> list[VerdictRow]:
    """One row per rule.

    Args:
        scores: `table.column` to value; None where the scorer failed.
        skip: Rule name to the reason why it does not decide here.
    """
    rows = []
    for rule in rules:
        score = scores.get(rule.column)
        verdict, reason = _word(rule, score, rule.column in scores, skip)
        rows.append(
            VerdictRow(
                clip_id=clip_id,
                rule=rule.name,
                score_column=rule.column,
                score=score,
                minimum=rule.min,
                maximum=rule.max,
                verdict=verdict.value,
                reason=reason,
                made_by=made_by,
            )
        )
    return rows


def _word(rule: Rule, score: float | None, known: bool, skip: Mapping[str, str]) -> tuple[Verdict, str]:
    if rule.not_applied:
        return Verdict.SKIPPED, rule.not_applied
    if rule.name in skip:
        return Verdict.SKIPPED, skip[rule.name]
    if not known and rule.column.split(".")[0] in SPARSE:
        return Verdict.SKIPPED, "the clip has nothing to be judged by"
    if score is None or score != score:
        return Verdict.ERROR, "its scorer failed on this clip" if known else "the clip has no such score"
    if rule.min is not None and score < rule.min:
        return Verdict.REJECT, f"{rule.reason}: {score:.4g} is below {rule.min:g}"
    if rule.max is not None and score > rule.max:
        return Verdict.REJECT, f"{rule.reason}: {score:.4g} is above {rule.max:g}"
    return Verdict.KEEP, ""


def select(clip_id: str, rows: Sequence[VerdictRow], made_by: str) -> Selection:
    """All rules together: one rejection rejects; else one error makes an error; else keep."""
    for verdict in (Verdict.REJECT, Verdict.ERROR):
        reasons = [r.rule for r in rows if r.verdict == verdict]
        if reasons:
            return Selection(clip_id=clip_id, verdict=verdict.value, reasons=reasons, made_by=made_by)
    return Selection(clip_id=clip_id, verdict=Verdict.KEEP.value, reasons=[], made_by=made_by)
