"""The report's part on the policy: where clips fall, what lies beside each threshold, and how every score is spread.

All of it comes from the scoreboard; pictures are middle proxy frames.  The list of scorers makes the list of
scores, so that a new scorer has its part without anybody writing it.  Beside a threshold the nearest clips on
either side are shown, because that is where a person can see whether it stands in the right place.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.contact_sheet import contact_sheet
from pipelines.policy import whatif
from pipelines.policy.rules import Rule
from pipelines.policy.scoreboard import COLUMNS, DOCUMENTED, SCORE_TABLES, SCOREBOARD, standing
from pipelines.report import page as html
from pipelines.report.tables import Section, Tables

_BESIDE = 12
"""Clips shown on either side of a threshold."""
_SHEET_BYTES = 70_000
_BINS = 48
_HALF = 460
"""Width of a histogram that stands beside another, in its own units."""


def policy(tables: Tables) -> tuple[Rule, ...]:
    """The rules that stand, as the first batch was judged; batches that were judged otherwise are named by `fall`."""
    for batch in tables.store.batches(SCOREBOARD):
        commit = tables.store.committed(SCOREBOARD, batch)
        if commit is not None:
            return standing(commit).rules
    return ()


def fall(tables: Tables) -> list[Section]:
    """Funnel in rule order, overlap between rules, and what each rule alone costs."""
    rules = policy(tables)
    if not rules:
        return []
    found = whatif.answer(whatif.ask(tables.store, rules))
    steps = [s for s in found["funnel"] if s["lost"]["clips"] or s["rule"] == "all clips"]
    text = html.funnel([(s["rule"], s["clips"]) for s in steps])
    kept = found["after"]["keep"]
    text += f"<p>{kept['clips']} clips are kept, {kept['hours']:.3g} hours of {found['funnel'][0]['hours']:.3g}.</p>"
    columns = (
        "rule",
        "score",
        "at least",
        "at most",
        "rejects",
        "only it",
        "shared out",
        "back without it",
        "hours back",
    )
    body = [
        [
            r["rule"], r["column"], r["min"], r["max"], r["rejects"]["clips"], r["only_it"]["clips"],
            r["share_of_rejected"], r["back_without_it"]["clips"], r["back_without_it"]["hours"],
        ]
        for r in found["rules"]
        if not r["skipped"]
    ]  # fmt: skip
    text += "<h3>What each rule costs</h3>" + html.table(columns, body)
    shown = [i for i, row in enumerate(found["overlap"]["clips"]) if row[i]]
    names = [found["overlap"]["rules"][i] for i in shown]
    pairs = [[found["overlap"]["clips"][i][j] for j in shown] for i in shown]
    text += "<h3>Rules that fall together</h3>" + html.matrix(names, pairs, "clips that both reject") if names else ""
    text += _left(found["left"])
    quiet = [(r["rule"], r["skipped"]) for r in found["rules"] if r["skipped"]]
    text += "<h3>Rules that do not decide everywhere</h3>" + html.table(("rule", "why"), quiet) if quiet else ""
    text += html.note(_otherwise(tables, rules))
    return [Section("Where clips fall", text, 0, found["funnel"][0]["clips"])]


def _left(left: dict[str, Any]) -> str:
    parts = ""
    for kind, cells in left.items():
        body = [[name, c["after"]["clips"], c["after"]["hours"]] for name, c in cells.items() if c["after"]["clips"]]
        found = html.table((f"kept, by {kind}", "clips", "hours"), body)
        parts += f"<div>{found}</div>" if found else ""
    return f"<h3>What is left</h3><div class='side'>{parts}</div>" if parts else ""


def _otherwise(tables: Tables, rules: Sequence[Rule]) -> str:
    commits = {b: tables.store.committed(SCOREBOARD, b) for b in tables.store.batches(SCOREBOARD)}
    other = [b for b, c in commits.items() if c is not None and standing(c).rules != tuple(rules)]
    return f"Judged by other rules than shown here: {', '.join(other)}." if other else ""


def thresholds(tables: Tables) -> list[Section]:
    """For each bound the clips just on its right side and just on its wrong side, and where it lies in the scores."""
    rules = [r for r in policy(tables) if not r.not_applied and r.column in COLUMNS]
    board = _board(tables, [COLUMNS[r.column] for r in rules])
    bounds = [(r, b, side) for r in rules for side, b in (("min", r.min), ("max", r.max)) if b is not None]
    chosen = [(r, b, side, *beside(board[COLUMNS[r.column]], board["clip_id"], b, side)) for r, b, side in bounds]
    ids = board["clip_id"]
    pictures = tables.middles([ids[i] for *_, wrong, right in chosen for i in (*wrong, *right)])
    text, count, used = "", 0, 0
    for rule, bound, side, wrong, right in chosen:
        score = board[COLUMNS[rule.column]]
        if not np.isfinite(score).any():
            continue
        sheets = ""
        for rows, what in (
            (wrong, f"just {'below' if side == 'min' else 'above'}: rejected"),
            (right, "just inside: passes"),
        ):
            some = [(pictures[ids[i]], _label(score[i], board, i)) for i in rows if ids[i] in pictures]
            count += len(some)
            used += len(rows)
            picture = (
                html.image(contact_sheet(some, 4, _BESIDE, _SHEET_BYTES), "sheet", what) if some else "<p>none</p>"
            )
            sheets += f"<div><span class='soft'>{html.escape(what)}</span><br>{picture}</div>"
        about = f"{rule.name}: {rule.column} {'at least' if side == 'min' else 'at most'} {bound:g}"
        text += f"<h3>{html.escape(about)}</h3>{spread(rule.column, score, rules)}<div class='side'>{sheets}</div>"
    return [Section("At each threshold", text, count, used)] if text else []


def beside(
    score: np.ndarray, ids: np.ndarray, bound: float, side: str, most: int = _BESIDE
) -> tuple[list[int], list[int]]:
    """Rows nearest to a bound: (those it rejects, those it lets pass), nearest first; ties by id."""
    order = np.lexsort((ids.astype(str), np.abs(score - bound)))
    order = order[np.isfinite(score[order])]
    wrong = score[order] < bound if side == "min" else score[order] > bound
    return [int(i) for i in order[wrong][:most]], [int(i) for i in order[~wrong][:most]]


def scores(tables: Tables) -> list[Section]:
    """One section per scorer, made from the list: each column's meaning, spread and bounds."""
    rules = [r for r in policy(tables) if not r.not_applied]
    sections = []
    for table in SCORE_TABLES:
        columns = [c for c in COLUMNS if c.startswith(f"{table.name}.")]
        board = _board(tables, [COLUMNS[c] for c in columns])
        if not len(board["clip_id"]):
            continue
        text = "".join(f"<div>{spread(c, board[COLUMNS[c]], rules, _HALF)}</div>" for c in columns)
        if text:
            sections.append(
                Section(
                    f"Score: {table.name.removeprefix('score_')}",
                    f"<div class='side'>{text}</div>",
                    0,
                    len(board["clip_id"]),
                )
            )
    return sections


def spread(column: str, score: np.ndarray, rules: Sequence[Rule], width: int = 720) -> str:
    """A column's histogram with the bounds of the rules that read it, and what it means."""
    known = score[np.isfinite(score)]
    meaning, unit, span = DOCUMENTED[column]
    notes = "; ".join(
        n for n in (meaning.rstrip("."), f"unit {unit}" if unit else "", f"range {span}" if span else "") if n
    )
    if not len(known):
        return f"<p class='soft'>{html.escape(column)}: {html.escape(notes)} No clip has this score.</p>"
    asking = [r for r in rules if r.column == column]
    bounds = [
        (b, f"{r.name} {side} {b:g}") for r in asking for side, b in (("min", r.min), ("max", r.max)) if b is not None
    ]
    counts, edges = bins(known, [b for b, _ in bounds])
    middles = (edges[1:] + edges[:-1]) / 2
    outside = np.zeros(len(counts), bool)
    for rule in asking:
        outside |= (middles < rule.min) if rule.min is not None else False
        outside |= (middles > rule.max) if rule.max is not None else False
    gone = len(score) - len(known)
    label = f"{column}: {len(known)} clips, median {np.median(known):.4g}" + (f", {gone} without" if gone else "")
    drawn = html.histogram(
        [int(c) for c in counts], [float(e) for e in edges], bounds, [bool(o) for o in outside], label, width
    )
    return f"{drawn}<p class='soft'>{html.escape(notes)}</p>"


def bins(known: np.ndarray, bounds: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Counts and edges over the range of 98 % of the scores, widened to show the bounds; the rest is in the end bins.

    An edge is laid on every bound, so that no bar is half rejected.
    """
    low, high = (float(v) for v in np.percentile(known, (1, 99)))
    low, high = min([low, *bounds]), max([high, *bounds])
    margin = 0.03 * (high - low) or max(abs(high) * 0.1, 0.5)
    low, high = max(low - margin, float(known.min())), min(high + margin, float(known.max()))
    low, high = min([low, *bounds]), max([high, *bounds])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.unique(np.concatenate([np.linspace(low, high, _BINS + 1), [b for b in bounds if low < b < high]]))
    counts, _ = np.histogram(np.clip(known, low, high), edges)
    return counts, edges


def _label(score: float, board: dict[str, np.ndarray], row: int) -> str:
    return f"{score:.4g} {board['clip_id'][row][:6]} {board['verdict'][row]}"


def _board(tables: Tables, columns: Sequence[str]) -> dict[str, np.ndarray]:
    return tables.columns(SCOREBOARD, "clip_id", "verdict", *sorted(set(columns)))
