"""The scoreboard: one wide row per clip with every score a rule may ask for, its shape, and what stands of it.

Score tables are narrow, one per scorer; joining a dozen of them on a text key takes seconds for millions of
clips.  The stage `verdicts` has just joined them, so it writes the join down: `dailies whatif` then reads the
two or three columns whose bounds moved, and takes the word of all other rules from `rejected_by` and `errors_of`,
which hold a few hundred different texts and cost next to nothing to read.

A rule's column `score_blur.edge` is `blur_edge` here; the list follows from the scorers.
"""

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipelines.manifest.stage import aspect
from pipelines.policy.rules import Rule, Scores
from pipelines.policy.twins import keys_of
from pipelines.scorers import SCORERS
from pipelines.scorers.clip import CLIP_OUTPUTS, SPARSE
from pipelines.scorers.ocr import SCORE_OCR
from schemas.clips import Clip
from schemas.store import Commit
from schemas.table import Table, column
from schemas.verdicts import Selection, Verdict, VerdictRow

SCORER_TABLES: tuple[Table, ...] = tuple(s.table for s in SCORERS)
SCORE_TABLES: tuple[Table, ...] = (*SCORER_TABLES, SCORE_OCR, *CLIP_OUTPUTS)
SEPARATOR = ","
_NO_SCORE = ("clip_id", "error", "made_by", "model")
_OF_CLIPS: dict[str, tuple[str, str, str]] = {
    "clips.max_inner_boundary": ("Strongest boundary evidence inside the clip.", "", "[0, 1]"),
    "clips.width": ("Width as shown, after the crop.", "pixel", "[1, inf)"),
    "clips.height": ("Height as shown, after the crop.", "pixel", "[1, inf)"),
    "clips.short_side": ("The smaller of width and height.", "pixel", "[1, inf)"),
    "clips.fps": ("Frames over duration.", "frame/s", "(0, inf)"),
    "scans.damaged_share": ("Share of the clip inside spans that did not decode.", "", "[0, 1]"),
    "duplicates.cosine": ("Cosine to the better twin that is kept; 0 if there is none.", "", "[-1, 1]"),
}
"""Rules may also ask for these, which no scorer writes."""


def score_names(table: Table) -> list[str]:
    """A score table's numbers: all columns but the key and what is said about the row."""
    return [n for n in table.schema.names if n not in _NO_SCORE]


def _documented() -> dict[str, tuple[str, str, str]]:
    """`table.column` of every score to (meaning, unit, range)."""
    found = dict(_OF_CLIPS)
    for table in SCORE_TABLES:
        for name in score_names(table):
            notes = {k.decode(): v.decode() for k, v in (table.schema.field(name).metadata or {}).items()}
            found[f"{table.name}.{name}"] = (notes.get("doc", ""), notes.get("unit", ""), notes.get("range", ""))
    return found


DOCUMENTED = _documented()
COLUMNS = {name: name.removeprefix("score_").replace(".", "_") for name in DOCUMENTED}
SPARSE_COLUMNS = frozenset(here for name, here in COLUMNS.items() if name.split(".")[0] in SPARSE)
"""Columns that are null where they do not apply; a rule over them passes such a clip by."""
"""A rule's `table.column` to its column here."""


def _row() -> type:
    fields: list[tuple[str, Any, Any]] = [
        ("clip_id", str, column("The clip.")),
        ("video_id", str, column("The video.")),
        ("aspect", str, column("Name of the nearest common aspect ratio, for counting only.")),
        ("seconds", float, column("Length of the clip.", unit="s", range="[0, inf)")),
        ("verdict", str, column("The standing verdict: keep, reject or error.")),
        ("rejected_by", str, column("Names of the rules that reject the clip, with commas between; empty if none.")),
        ("errors_of", str, column("Names of the rules that have no score to judge by, with commas between.")),
    ]
    twin = "The clip's key in table `duplicates` (first 15 hex digits); null for one that shows the same as no other."
    fields.append(("twin", int | None, column(twin)))
    for name, (doc, unit, span) in DOCUMENTED.items():
        fields.append((COLUMNS[name], float | None, column(doc, unit=unit, range=span)))
    fields.append(("made_by", str, column("Digest of code version, config and models.")))
    return dataclasses.make_dataclass("ScoreboardRow", fields, frozen=True, slots=True, kw_only=True)


SCOREBOARD = Table(
    "scoreboard", _row(), ("clip_id",), doc="One wide row per clip: every score, and what stands.", scanned=True
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a batch's scoreboard says of itself, kept in its footer."""

    rules: tuple[Rule, ...] = ()
    """The policy that gave the standing verdicts."""
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Rules that did not decide, and why."""
    tables: tuple[str, ...] = ()
    """Tables that had been made; a rule over another is skipped."""
    foreign: bool = False
    """The CLIP in use knows nothing of this footage."""

    def as_metric(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


def standing(commit: Commit) -> Standing:
    """Read it back from a footer."""
    plain = json.loads(str(commit.metrics.get("policy", "{}")))
    return Standing(
        rules=tuple(Rule(**r) for r in plain.get("rules", ())),
        skipped=plain.get("skipped", {}),
        tables=tuple(plain.get("tables", ())),
        foreign=bool(plain.get("foreign", False)),
    )


def board(
    clips: Sequence[Clip],
    scores: Mapping[str, Scores],
    words: Iterable[tuple[Sequence[VerdictRow], Selection]],
    made_by: str,
    twins: Collection[str] = (),
) -> pa.Table:
    """All clips as scoreboard rows.

    Args:
        words: Each clip's verdict rows (in policy order) and selection, in the order of `clips`.
        twins: Clips that show the same as another.
    """
    found: dict[str, list[Any]] = {n: [] for n in SCOREBOARD.schema.names}
    for clip, (rows, selection) in zip(clips, words):
        known = scores[clip.clip_id]
        found["clip_id"].append(clip.clip_id)
        found["video_id"].append(clip.video_id)
        found["aspect"].append(aspect(clip.width, clip.height))
        found["seconds"].append(clip.end_s - clip.start_s)
        found["verdict"].append(selection.verdict)
        found["rejected_by"].append(SEPARATOR.join(r.rule for r in rows if r.verdict == Verdict.REJECT))
        found["errors_of"].append(SEPARATOR.join(r.rule for r in rows if r.verdict == Verdict.ERROR))
        found["made_by"].append(made_by)
        found["twin"].append(int(keys_of([clip.clip_id])[0]) if clip.clip_id in twins else None)
        for name, here in COLUMNS.items():
            value = known.get(name)
            found[here].append(None if value is None or value != value else value)  # the policy takes NaN for no score
    return SCOREBOARD.sorted(pa.table(found, schema=SCOREBOARD.schema))
