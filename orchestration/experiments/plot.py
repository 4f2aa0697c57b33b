"""Two charts with 95 % intervals, as PNG: groups of points for arms, a curve on logarithmic axes for compute.

Drawn with Pillow at twice the size and scaled down, so that no plotting library is needed.  Pure; about 50 ms.
"""

import dataclasses
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

Numbers = Mapping[str, Any]
"""value, low and high; low and high may be None."""
_COLORS = ((38, 93, 171), (207, 92, 16), (60, 130, 60), (130, 60, 140))
_SOFT, _INK = (214, 214, 214), (40, 40, 40)
_SCALE = 2
_WIDTH, _HEIGHT = 980, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 24, 74, 64


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """One colour of a chart."""

    name: str
    points: Sequence[Numbers]
    chance: float | None = None
    """Where a dashed line of its colour is drawn: what guessing gives."""


class _Chart:
    """A frame with a vertical axis."""

    def __init__(self, title: str, series: Sequence[Series], low: float, high: float, log: bool = False) -> None:
        self.picture = Image.new("RGB", (_WIDTH * _SCALE, _HEIGHT * _SCALE), "white")
        self.draw = ImageDraw.Draw(self.picture)
        self._low, self._high, self._log = low, high, log
        self.text(_LEFT, 12, title, 15)
        x = _LEFT
        for s, color in zip(series, _COLORS):
            self.dot(x + 6, 48, color)
            note = s.name + (f" (chance {s.chance:.2f}, dashed)" if s.chance is not None else "")
            self.text(x + 18, 40, note, 12)
            x += 40 + int(self.draw.textlength(note, self._font(12)) / _SCALE)
        self.line((_LEFT, _TOP, _LEFT, _HEIGHT - _BOTTOM), _INK)
        self.line((_LEFT, _HEIGHT - _BOTTOM, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM), _INK)
        for tick in ticks(low, high, log):
            y = self.y(tick)
            self.line((_LEFT, y, _WIDTH - _RIGHT, y), _SOFT)
            self.text(_LEFT - 8, y - 7, f"{tick:.3g}", 12, right=True)

    def y(self, value: float) -> float:
        """Where a value lies."""
        low, high = (math.log(self._low), math.log(self._high)) if self._log else (self._low, self._high)
        share = ((math.log(value) if self._log else value) - low) / (high - low)
        return _HEIGHT - _BOTTOM - min(1.0, max(0.0, share)) * (_HEIGHT - _BOTTOM - _TOP)

    def point(self, x: float, of: Numbers, color: tuple[int, int, int]) -> None:
        """A mean with its interval."""
        if of["value"] is None:
            return
        if of["low"] is not None and of["high"] is not None:
            low, high = self.y(of["low"]), self.y(of["high"])
            self.line((x, low, x, high), color, 2)
            for end in (low, high):
                self.line((x - 5, end, x + 5, end), color, 2)
        self.dot(x, self.y(of["value"]), color)
        self.text(x + 8, self.y(of["value"]) - 7, f"{of['value']:.3g}", 11)

    def dot(self, x: float, y: float, color: tuple[int, int, int]) -> None:
        self.draw.ellipse([(v * _SCALE) for v in (x - 5, y - 5, x + 5, y + 5)], fill=color)

    def line(self, ends: tuple[float, ...], color: tuple[int, int, int], width: int = 1) -> None:
        self.draw.line([v * _SCALE for v in ends], fill=color, width=width * _SCALE)

    def dashed(self, x0: float, x1: float, y: float, color: tuple[int, int, int]) -> None:
        x = x0
        while x < x1:
            self.line((x, y, min(x + 6, x1), y), color)
            x += 12

    def text(self, x: float, y: float, text: str, size: int, *, right: bool = False, middle: bool = False) -> None:
        font = self._font(size)
        wide = self.draw.textlength(text, font) / _SCALE
        x -= wide if right else wide / 2 if middle else 0
        self.draw.text((x * _SCALE, y * _SCALE), text, fill=_INK, font=font)

    def _font(self, size: int) -> Any:
        return ImageFont.load_default(size=size * _SCALE)

    def png(self) -> bytes:
        buffer = io.BytesIO()
        self.picture.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS).save(buffer, "PNG", optimize=True)
        return buffer.getvalue()


def bars(title: str, groups: Sequence[str], series: Sequence[Series], *, share: bool = True) -> bytes:
    """Points with intervals, a group per arm.

    Args:
        share: The axis goes from 0 to 1; else from a little below to a little above what is drawn.
    """
    low, high = 0.0, 1.0
    if not share:
        ends = _ends(series)
        margin = 0.08 * (max(ends) - min(ends)) or 0.1
        low, high = min(ends) - margin, max(ends) + margin
    chart = _Chart(title, series, low, high)
    wide = (_WIDTH - _LEFT - _RIGHT) / len(groups)
    for s, color in zip(series, _COLORS):
        if s.chance is not None:
            chart.dashed(_LEFT, _WIDTH - _RIGHT, chart.y(s.chance), color)
    for i, group in enumerate(groups):
        middle = _LEFT + (i + 0.5) * wide
        chart.text(middle, _HEIGHT - _BOTTOM + 12, group, 13, middle=True)
        for k, s in enumerate(series):
            chart.point(middle + (k - (len(series) - 1) / 2) * min(60.0, wide / 3), s.points[i], _COLORS[k])
    return chart.png()


def curve(title: str, x_name: str, xs: Sequence[float], series: Sequence[Series], names: Sequence[str]) -> bytes:
    """Points with intervals over x, joined, both axes logarithmic.

    Args:
        names: What each x is called.
    """
    ends = [v for v in _ends(series) if v > 0]
    low, high = min(ends) * 0.97, max(ends) * 1.03
    chart = _Chart(title, series, low, high, log=True)
    left, right = math.log(min(xs)), math.log(max(xs))

    def place(x: float) -> float:
        share = (math.log(x) - left) / (right - left) if right > left else 0.5
        return _LEFT + 60 + share * (_WIDTH - _LEFT - _RIGHT - 140)

    for s, color in zip(series, _COLORS):
        ways = [(place(x), chart.y(p["value"])) for x, p in zip(xs, s.points)]
        for a, b in itertools.pairwise(ways):
            chart.line((*a, *b), color)
        for x, p in zip(xs, s.points):
            chart.point(place(x), p, color)
    for x, name in zip(xs, names):
        chart.text(place(x), _HEIGHT - _BOTTOM + 10, f"{name}: {x:.2g}", 12, middle=True)
    chart.text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 26, x_name, 12, middle=True)
    return chart.png()


def stacked(pictures: Sequence[bytes]) -> bytes:
    """Charts under each other."""
    page = Image.new("RGB", (_WIDTH, _HEIGHT * len(pictures)), "white")
    for i, data in enumerate(pictures):
        with Image.open(io.BytesIO(data)) as picture:
            page.paste(picture, (0, i * _HEIGHT))
    buffer = io.BytesIO()
    page.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _ends(series: Sequence[Series]) -> list[float]:
    return [v for s in series for p in s.points for v in (p["value"], p["low"], p["high"]) if v is not None]


def ticks(low: float, high: float, log: bool) -> list[float]:
    """Where lines are drawn: five to ten round numbers."""
    if log and high / low > 5:
        steps = (
            v * 10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high))) for v in (1, 2, 5)
        )
        return [v for v in steps if low <= v <= high]
    size = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(size * k for k in (1, 2, 5, 10) if (high - low) / (size * k) <= 10)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]
