"""What changed between two frozen manifests: clips that came, went or changed, and by which rule.

Why a clip went is asked in this order: its batch is not in the other manifest; a rule of the other policy rejects the
scores that its own row carries; a rule rejects it in the tables as they stand (scores that a row does not carry,
such as duplicates); its caption or file failed; it is not cut any more.  The first that holds is given, and where
none does, that is said.  For a clip that came the same is asked of the older policy.  Reads two Parquet files and,
for what is still unexplained, the standing tables.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq

from pipelines.exports.base import manifest_name
from pipelines.policy.rules import Rule, judge, select
from pipelines.policy.scoreboard import SCOREBOARD, SEPARATOR
from schemas.captions import CAPTIONS, CaptionStatus
from schemas.clips import CLIP_FILES, CLIPS
from schemas.manifest import MANIFEST
from schemas.store import Store
from schemas.table import Table
from schemas.verdicts import Verdict

_OWN = ("manifest", "policy")
"""Columns that differ between any two manifests."""
UNKNOWN = "not known from the tables that are left"


def diff(store: Store, older: str, newer: str) -> dict[str, Any]:
    """Compare two manifests of a root, each named by (the beginning of) its digest or `current`.

    Raises:
        UsageError: If one of them is not there.
    """
    names = [manifest_name(store, n) for n in (older, newer)]
    notes = [store.read_json("manifests", n, "_manifest.json") for n in names]
    before, after = (_rows(store, n) for n in names)
    went = {c: before[c] for c in sorted(before.keys() - after.keys())}
    came = {c: after[c] for c in sorted(after.keys() - before.keys())}
    why_went, why_came = _reasons(store, went, notes[1]), _reasons(store, came, notes[0], standing=False)
    changed = {c: found for c in sorted(before.keys() & after.keys()) if (found := _changes(before[c], after[c]))}
    return {
        "older": names[0],
        "newer": names[1],
        "clips": {"older": len(before), "newer": len(after), "same": len(before.keys() & after.keys()) - len(changed)},
        "hours": {"older": _hours(before.values()), "newer": _hours(after.values())},
        "came": {"clips": len(came), "hours": _hours(came.values()), "by": _count(why_came), "why": why_came},
        "went": {"clips": len(went), "hours": _hours(went.values()), "by": _count(why_went), "why": why_went},
        "changed": {
            "clips": len(changed),
            "by": dict(Counter(c for columns in changed.values() for c in columns).most_common()),
            "what": changed,
        },
        "policy": policy_changes(_rules(notes[0]), _rules(notes[1])),
    }


def _rows(store: Store, name: str) -> dict[str, dict[str, Any]]:
    with store.fs.open(store.at("manifests", name, "part-00000.parquet"), "rb") as f:
        return {r["clip_id"]: r for r in MANIFEST.grown(pq.ParquetFile(f).read()).to_pylist()}


def _hours(rows: Any) -> float:
    return round(sum(r["num_frames"] / r["fps"] for r in rows if r["fps"]) / 3600, 9)


def _count(reasons: Mapping[str, Sequence[str]]) -> dict[str, int]:
    return dict(Counter(r for some in reasons.values() for r in some).most_common())


def _rules(note: Mapping[str, Any]) -> tuple[Rule, ...]:
    return tuple(Rule(**r) for r in note["rules"])


def _changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Names of the columns that differ; of the scores, which."""
    found = [n for n in b if n not in (*_OWN, "scores") and a.get(n) != b[n]]
    scores = [json.loads(r["scores"] or "{}") for r in (a, b)]
    return found + sorted(n for n in scores[0].keys() | scores[1].keys() if scores[0].get(n) != scores[1].get(n))


def policy_changes(before: Sequence[Rule], after: Sequence[Rule]) -> list[str]:
    """Rules that were added, dropped or moved, in words."""
    old, new = ({r.name: r for r in rules} for rules in (before, after))
    found = [f"{n} added: {_bounds(new[n])}" for n in new if n not in old]
    found += [f"{n} dropped: {_bounds(old[n])}" for n in old if n not in new]
    both = [n for n in new if n in old and _bounds(old[n]) != _bounds(new[n])]
    return found + [f"{n} moved: {_bounds(old[n])} to {_bounds(new[n])}" for n in both]


def _bounds(rule: Rule) -> str:
    if rule.not_applied:
        return "not applied"
    bounds = [f"{w} {b:g}" for w, b in (("at least", rule.min), ("at most", rule.max)) if b is not None]
    return f"{rule.column} {' and '.join(bounds)}"


def _reasons(
    store: Store, rows: Mapping[str, Mapping[str, Any]], note: Mapping[str, Any], standing: bool = True
) -> dict[str, list[str]]:
    """Why each clip is not in the manifest of that note.

    Args:
        standing: Ask the tables as they stand too; they say nothing of why an older manifest lacks a clip.
    """
    rules = _rules(note)
    tables = _Standing(store, {str(r["batch"]) for r in rows.values()}) if standing and rows else None
    found = {}
    for clip, row in rows.items():
        if row["batch"] not in note["batches"]:
            found[clip] = [f"batch {row['batch']} is not in it"]
            continue
        scores = json.loads(row["scores"] or "{}")
        known = [r for r in rules if r.column in scores]
        verdict = select(clip, judge(clip, scores, known, {}, ""), "")
        rejecting = [f"rule {n}" for n in verdict.reasons] if verdict.verdict == Verdict.REJECT else []
        found[clip] = rejecting or (tables.why(clip, str(row["batch"])) if tables else []) or [UNKNOWN]
    return found


class _Standing:
    """What the tables of some batches say today."""

    def __init__(self, store: Store, batches: set[str]) -> None:
        self.fates = self._read(store, batches, SCOREBOARD, "rejected_by", "errors_of")
        self.captions = self._read(store, batches, CAPTIONS, "status")
        self.files = self._read(store, batches, CLIP_FILES, "status")
        self.clips = self._read(store, batches, CLIPS)

    @staticmethod
    def _read(store: Store, batches: set[str], table: Table, *columns: str) -> dict[str, dict[str, Any]]:
        there = sorted(batches & set(store.batches(table)))
        read = [store.read(table, batch=b, columns=["clip_id", *columns]).to_pylist() for b in there]
        return {r["clip_id"]: r for rows in read for r in rows}

    def why(self, clip: str, batch: str) -> list[str]:
        if clip not in self.clips:
            return ["it is not cut any more"]
        fate = self.fates.get(clip, {"rejected_by": "", "errors_of": ""})
        if fate["rejected_by"]:
            return [f"rule {n}" for n in fate["rejected_by"].split(SEPARATOR)]
        if fate["errors_of"]:
            return [f"no score for rule {n}" for n in fate["errors_of"].split(SEPARATOR)]
        if self.files.get(clip, {}).get("status") != "ok":
            return ["no clip file"]
        caption = self.captions.get(clip)
        if caption is None:
            return ["no caption"]
        return [] if caption["status"] == CaptionStatus.OK else [f"caption {caption['status']}"]
