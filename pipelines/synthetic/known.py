"""What is known of rendered clips, rule by rule: does the rule's reason truly hold?  Labels that nobody has to give.

A rule is positive on a clip of a shot that was planted with a defect the rule may find (`DEFECT_RULES`).  Of two
near-duplicates either may go, so the one that went is positive, and of a pair that both stayed the copy is; where the
original fell to another rule, neither is.
Damaged files and copies are left out, as in the evaluation.
"""

from collections.abc import Sequence

from pipelines.synthetic.evaluate import DEFECT_RULES, Batch, EvaluationConfig, lost_originals, shots_of_clips
from pipelines.synthetic.measure import load_batch
from schemas.store import Store
from schemas.truth import TruthShot
from schemas.verdicts import Verdict

_TWINS = "near_duplicate"


def rule_truth(
    store: Store, batches: Sequence[str], config: EvaluationConfig | None = None
) -> dict[str, dict[str, bool]]:
    """Rule to clip to whether its reason holds; rules that find nothing that is planted are not in it."""
    found: dict[str, dict[str, bool]] = {}
    for name in batches:
        batch = load_batch(store, name)
        shown = shots_of_clips(batch, (config or EvaluationConfig()).min_overlap)
        for rule, defects in kinds().items():
            of_rule = _twins(batch, shown) if rule == _TWINS else {c: s.defect in defects for c, s in shown.items()}
            found.setdefault(rule, {}).update(of_rule)
    return found


def kinds() -> dict[str, set[str]]:
    """Rule to the planted defects it may find; a defect whose rules include another's is that one's kin."""
    rules = {r for known in DEFECT_RULES.values() for r in known} - {"letterbox"}
    return {r: {d for d, known in DEFECT_RULES.items() if r in known} for r in sorted(rules)}


def _twins(batch: Batch, shown: dict[str, TruthShot]) -> dict[str, bool]:
    """Clips that repeat another that stayed."""
    fired: dict[str, set[str]] = {}
    for v in batch.verdicts:
        if v.verdict == Verdict.REJECT:
            fired.setdefault(v.clip_id, set()).add(v.rule)
    went = {v.clip_id for v in batch.verdicts if v.rule == _TWINS and v.verdict == Verdict.REJECT}
    names = {c: f"{s.path}#{s.shot_index}" for c, s in shown.items()}
    twin = {f"{t.path}#{t.shot_index}": t.duplicate_of for t in batch.truth_shots if t.duplicate_of}
    gone = {names[c] for c in went if c in names} | lost_originals(batch, shown, fired)
    originals = set(twin.values())
    found = {}
    for clip, name in names.items():
        if clip in went:
            found[clip] = name in twin or name in originals
        else:
            found[clip] = name in twin and twin[name] not in gone
    return found
