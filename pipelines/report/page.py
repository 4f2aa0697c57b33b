"""Pieces of the report page: headings, tables, funnels, strips and curves as plain HTML with everything inside.

Pure: values in, text out.  No script, no outside file: the page can be mailed, and opens without a server.
"""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --soft: #6b6b76; --line: #d9d9e0; --bar: #3b6ea5; --back: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ee; --soft: #9a9aa8; --line: #3a3a44; --bar: #7aa7d9;
  --back: #17171b; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 1120px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th { text-align: left; color: var(--soft); font-weight: 500; }
td, th { padding: .2rem .7rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.note { border-left: 3px solid #c98a00; padding: .3rem .8rem; margin: 1rem 0; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 14px; }
figure { margin: 0; }
figure img { height: 74px; max-width: 32%; object-fit: contain; margin-right: 2px; }
figcaption { font-size: 12px; color: var(--soft); }
.bar { background: var(--bar); height: 12px; display: inline-block; vertical-align: middle; }
.bad { background: #c2553f; } .cell { text-align: right; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; } .side { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; }
svg text { fill: currentColor; font-size: 11px; } a { color: var(--bar); text-decoration: none; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
.sheet { max-width: 100%; } code { font-size: 12px; } .soft { color: var(--soft); }
"""


def page(title: str, sections: Iterable[tuple[str, str]], lead: str) -> str:
    """A whole page; empty sections are left out."""
    body = "".join(f"<h2 id='{anchor(name)}'>{escape(name)}</h2>{text}" for name, text in sections if text)
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{lead}{body}</body></html>\n"
    )


def contents(names: Sequence[str]) -> str:
    """Links to the sections."""
    links = " &middot; ".join(f"<a href='#{anchor(n)}'>{escape(n)}</a>" for n in names)
    return f"<p class='soft'>{links}</p>" if names else ""


def anchor(name: str) -> str:
    """A section's name as an id."""
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def escape(value: Any) -> str:
    return html.escape(str(value))


def number(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return escape(value)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; numbers to the right.  Empty without rows."""
    known = [list(row) for row in rows]
    if not known:
        return ""
    numbers = [any(isinstance(r[i], (int, float)) for r in known if i < len(r)) for i in range(len(columns))]
    lines = []
    for row in known:
        cells = (f"<td{_right(n or isinstance(v, (int, float)))}>{number(v)}</td>" for v, n in zip(row, numbers))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f"<th{_right(n)}>{escape(c)}</th>" for c, n in zip(columns, numbers))
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _right(is_number: bool) -> str:
    return " class='n'" if is_number else ""


def funnel(steps: Sequence[tuple[str, int]]) -> str:
    """Counts as bars, each against the largest."""
    most = max((count for _, count in steps), default=0)
    if not most:
        return ""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td class='n'>{count}</td>"
        f"<td style='width:60%'><span class='bar' style='width:{100 * count / most:.1f}%'></span></td></tr>"
        for name, count in steps
    )
    return f"<table>{rows}</table>"


def matrix(names: Sequence[str], counts: Sequence[Sequence[int]], corner: str) -> str:
    """Counts of pairs, darker where there are more; nothing where there is none."""
    most = max((c for i, row in enumerate(counts) for j, c in enumerate(row) if i != j), default=0)
    lines = []
    for i, (name, row) in enumerate(zip(names, counts)):
        cells = ""
        for j, count in enumerate(row):
            shade = 60 * count / most if most and i != j else 0
            mix = f" style='background: color-mix(in srgb, #c2553f {shade:.0f}%, transparent)'" if shade else ""
            cells += f"<td class='cell'{mix}>{f'<b>{count}</b>' if i == j else count or ''}</td>"
        lines.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    head = "".join(f"<th class='cell'>{escape(n)}</th>" for n in names)
    return (
        f"<div class='wide'><table><tr><th>{escape(corner)}</th>{head}</tr>{''.join(lines)}</table></div>"
        if names
        else ""
    )


def histogram(
    counts: Sequence[int],
    edges: Sequence[float],
    marks: Sequence[tuple[float, str]],
    outside: Sequence[bool],
    label: str,
    width: int = 720,
) -> str:
    """Bars whose height is the square root of the count, with a line at each mark.

    Args:
        edges: One more than counts, ascending.
        marks: (value, what it is); one out of range is drawn at the nearer end.
        outside: Which bars a rule rejects.
    """
    most, height, foot = max(counts, default=0), 120, 16
    if not most:
        return ""
    left, span = edges[0], (edges[-1] - edges[0]) or 1.0

    def x(value: float) -> float:
        return 8 + min(max((value - left) / span, 0.0), 1.0) * (width - 16)

    bars = ""
    for i, count in enumerate(counts):
        if count:
            tall = max(1.5, (height - 34) * (count / most) ** 0.5)
            color = "#c2553f" if outside[i] else "var(--bar)"
            start, across = x(edges[i]) + 0.5, x(edges[i + 1]) - x(edges[i]) - 1
            about = f"{edges[i]:.4g} to {edges[i + 1]:.4g}: {count}"
            box = f"x='{start:.1f}' y='{height - foot - tall:.1f}' width='{max(across, 0.5):.1f}' height='{tall:.1f}'"
            bars += f"<rect {box} fill='{color}'><title>{about}</title></rect>"
    lines = ""
    for value, text in marks:
        at = x(value)
        side, off = ("end", -4) if at > width * 0.7 else ("start", 4)
        down = f"x1='{at:.1f}' x2='{at:.1f}' y1='16' y2='{height - foot}'"
        lines += f"<line {down} stroke='currentColor' stroke-dasharray='4 3'/>"
        lines += f"<text x='{at + off:.1f}' y='24' text-anchor='{side}'>{escape(text)}</text>"
    return (
        f"<svg viewBox='0 0 {width} {height}' width='100%' role='img' aria-label='{escape(label)}'>{bars}{lines}"
        f"<text x='8' y='11'>{escape(label)}</text><text x='8' y='{height - 4}'>{edges[0]:.4g}</text>"
        f"<text x='{width - 8}' y='{height - 4}' text-anchor='end'>{edges[-1]:.4g}</text></svg>"
    )


def note(text: str) -> str:
    return f"<p class='note'>{escape(text)}</p>" if text else ""


def image(jpeg: bytes, css: str = "", alt: str = "") -> str:
    data = base64.b64encode(jpeg).decode()
    return f"<img {f'class={css} ' if css else ''}alt='{escape(alt)}' src='data:image/jpeg;base64,{data}'>"


def strips(items: Iterable[tuple[Sequence[bytes], str]]) -> str:
    """Pictures of one clip side by side, with its text below; many of them in a grid."""
    figures = [
        f"<figure>{''.join(image(p) for p in pictures)}<figcaption>{escape(text)}</figcaption></figure>"
        for pictures, text in items
        if pictures
    ]
    return f"<div class='grid'>{''.join(figures)}</div>" if figures else ""


def curve(points: Sequence[tuple[float, float]], label: str, width: int = 720, height: int = 160) -> str:
    """A line through points as SVG, with the ends' values."""
    if len(points) < 2:
        return ""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    across, up = (right - left) or 1.0, (high - low) or 1.0
    path = " ".join(
        f"{8 + (x - left) / across * (width - 16):.1f},{height - 8 - (y - low) / up * (height - 24):.1f}"
        for x, y in points
    )
    return (
        f"<svg viewBox='0 0 {width} {height}' width='100%' role='img' aria-label='{escape(label)}'>"
        f"<polyline fill='none' stroke='var(--bar)' stroke-width='1.6' points='{path}'/>"
        f"<text x='8' y='12' font-size='11' fill='currentColor'>{escape(label)}: {ys[0]:.4g} to {ys[-1]:.4g}, "
        f"lowest {low:.4g}</text></svg>"
    )


def measures(rows: Sequence[Mapping[str, Any]]) -> str:
    """Measured rates with their intervals."""
    shown = []
    for r in rows:
        interval = "" if r["low"] is None or r["high"] is None else f"{r['low']:.3f} to {r['high']:.3f}"
        value = None if r["value"] is None else float(r["value"])
        shown.append([r["name"], r["metric"], value, interval, r["n"] or None, r["chance"]])
    return table(("name", "metric", "value", "95 % interval", "n", "chance"), shown)
