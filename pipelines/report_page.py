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
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.note { border-left: 3px solid #c98a00; padding: .3rem .8rem; margin: 1rem 0; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 14px; }
figure { margin: 0; } figure img { height: 74px; margin-right: 2px; }
figcaption { font-size: 12px; color: var(--soft); }
.bar { background: var(--bar); height: 12px; display: inline-block; vertical-align: middle; }
.sheet { max-width: 100%; } code { font-size: 12px; } .soft { color: var(--soft); }
"""


def page(title: str, sections: Iterable[tuple[str, str]], lead: str) -> str:
    """A whole page; empty sections are left out."""
    body = "".join(f"<h2>{escape(name)}</h2>{text}" for name, text in sections if text)
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{lead}{body}</body></html>\n"
    )


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
    lines = []
    for row in rows:
        cells = (
            f"<td class='n'>{number(v)}</td>" if isinstance(v, (int, float)) else f"<td>{number(v)}</td>" for v in row
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    if not lines:
        return ""
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


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
