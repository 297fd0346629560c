"""Lines over time as inline SVG: no script, no outside request; colours are CSS variables of the page around it.

The tree is built as XML elements, so that no text can become markup. It must not know what a release is. Called by
`html`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from xml.etree.ElementTree import Element, SubElement, tostring

WIDTH, HEIGHT = 860, 170
_LETTER, _CAPITAL = 7.0, 8.5  # of the largest width in the page's style
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 22, 22
_LEAST = 1e-12
"""What is smaller is drawn as nothing: below it neither a logarithm nor a fifth of a value can be relied on."""
_TIME_STEPS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400)


@dataclass(frozen=True, slots=True)
class Line:
    """kind: its CSS class. points: (epoch seconds, value); a value of None breaks the line."""

    kind: str
    points: tuple[tuple[float, float | None], ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at a moment. kind: its CSS class; label: shown at its top, if there is room."""

    at_s: float
    kind: str
    label: str


@dataclass(frozen=True, slots=True)
class Plot:
    """label: of a value on the y axis, with its unit. least_top: the y axis reaches at least there.

    along: ticks of the x axis, which is time unless it says otherwise; then `from_s`, `to_s` and the places of points
           and marks are in its unit
    """

    title: str
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...]
    from_s: float
    to_s: float
    label: Callable[[float], str]
    least_top: float = 0.0
    logarithmic: bool = False
    along: Callable[[float, float], list[tuple[float, str]]] | None = None


def svg_from(plot: Plot) -> str:
    """The plot as one <svg> element."""
    svg = Element("svg", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", attrib={"class": "plot"})
    SubElement(svg, "title").text = plot.title
    values = [value for line in plot.lines for _, value in line.points if value is not None]
    if plot.logarithmic:
        ticks = log_ticks(values)
    else:
        ticks = linear_ticks(max([*values, plot.least_top, 0.0]), min([*values, 0.0]))
    frame = _Frame(plot, ticks)
    for tick in ticks:
        _line(svg, "grid", _LEFT, frame.y(tick), WIDTH - _RIGHT, frame.y(tick))
        _text(svg, "tick", _LEFT - 6, frame.y(tick) + 3.5, plot.label(tick), "end")
    for at_s, label in (plot.along or time_ticks)(plot.from_s, plot.to_s):
        x = frame.x(at_s)
        _text(
            svg,
            "tick",
            min(x, WIDTH - 1),
            HEIGHT - 7,
            label,
            "end" if x + _LETTER * len(label) / 2 > WIDTH else "middle",
        )
    _draw_marks(svg, frame, sorted(plot.marks, key=lambda mark: mark.at_s))
    for line in plot.lines:
        if path := " ".join(frame.path(line)):
            SubElement(svg, "path", {"class": f"line {line.kind}", "d": path})
    return tostring(svg, encoding="unicode")


def _draw_marks(svg: Element, frame: _Frame, marks: Sequence[Mark]) -> None:
    """A line each, and the label beside it where there is room."""
    taken = 0.0
    for mark in marks:
        x = frame.x(mark.at_s)
        _line(svg, f"mark {mark.kind}", x, _TOP - 4, x, HEIGHT - _BOTTOM)
        wide = 4 + sum(_CAPITAL if letter.isupper() else _LETTER for letter in mark.label)
        on_the_right = x + wide <= WIDTH
        if (x if on_the_right else x - wide) >= taken:
            place, anchor = (x + 3, "start") if on_the_right else (x - 3, "end")
            _text(svg, f"mark {mark.kind}", place, _TOP - 9, mark.label, anchor)
            taken = x + wide if on_the_right else x


class _Frame:
    """From values to places in the picture."""

    def __init__(self, plot: Plot, ticks: Sequence[float]) -> None:
        self._plot = plot
        self._scale: Callable[[float], float] = _logarithm if plot.logarithmic else float
        self._low, self._high = self._scale(ticks[0]), self._scale(ticks[-1])
        self._seconds = max(plot.to_s - plot.from_s, 1e-9)

    def x(self, at_s: float) -> float:
        share = min(1.0, max(0.0, (at_s - self._plot.from_s) / self._seconds))
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = max(0.0, (self._scale(value) - self._low) / (self._high - self._low))
        return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 1)

    def path(self, line: Line) -> Iterator[str]:
        """Each unbroken run of points."""
        for known, run in groupby(line.points, lambda point: point[1] is not None):
            if known:
                places = [(self.x(at_s), self.y(value)) for at_s, value in run if value is not None]
                yield f"M{places[0][0]} {places[0][1]}"
                for x, y in places[1:]:
                    yield f"L{x} {y}"


def linear_ticks(top: float, bottom: float = 0.0) -> list[float]:
    """0 and up to six more, at multiples of 1, 2 or 5, the last at or above `top`, the first at or below `bottom`."""
    if top < _LEAST and bottom > -_LEAST:
        return [0.0, 1.0]
    top, bottom = max(top, 0.0), min(bottom, 0.0)
    reach = top - bottom
    step = next(step for step in _nice(reach / 5) if step * 5 >= reach)
    return [step * number for number in range(math.floor(bottom / step + 1e-9), math.ceil(top / step - 1e-9) + 1)]


def count_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """At most seven round numbers from `low` to `high`."""
    ticks = (tick for tick in linear_ticks(max(high, 1.0)) if low <= tick <= high)
    return [(tick, f"{tick:,.0f}") for tick in ticks if tick == round(tick)]


def log_ticks(values: Sequence[float]) -> list[float]:
    """From at or below the least to at or above the largest value above 0, at 1, 2 and 5 or only at powers of ten."""
    positive = [value for value in values if value >= _LEAST] or [0.001, 0.1]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    factors = (1.0, 2.0, 5.0) if high - low <= 2 else (1.0,)
    every = [factor * 10.0**power for power in range(low, high + 1) for factor in factors]
    first = max(index for index, tick in enumerate(every) if tick <= min(positive) or index == 0)
    last = min((index for index, tick in enumerate(every) if tick >= max(positive)), default=len(every) - 1)
    return every[first : max(last, first + 1) + 1]


def time_ticks(from_s: float, to_s: float) -> list[tuple[float, str]]:
    """At most eight round moments, in UTC."""
    step = next((step for step in _TIME_STEPS_S if (to_s - from_s) / step <= 8), _TIME_STEPS_S[-1])
    while (to_s - from_s) / step > 8:
        step *= 2
    form = "%m-%d" if step >= 86_400 else "%H:%M" if step >= 60 else "%H:%M:%S"
    first = math.ceil(from_s / step)
    moments = [number * step for number in range(first, math.floor(to_s / step) + 1)]
    return [(float(moment), datetime.fromtimestamp(moment, UTC).strftime(form)) for moment in moments]


def _nice(least: float) -> Iterator[float]:
    power = math.floor(math.log10(least))
    while True:
        yield from (factor * 10.0**power for factor in (1.0, 2.0, 5.0))
        power += 1


def _logarithm(value: float) -> float:
    return math.log(max(value, _LEAST))


def _line(svg: Element, kind: str, x1: float, y1: float, x2: float, y2: float) -> None:
    places = {"x1": str(x1), "y1": str(y1), "x2": str(x2), "y2": str(y2)}
    SubElement(svg, "line", {"class": kind, **places})


def _text(svg: Element, kind: str, x: float, y: float, text: str, anchor: str) -> None:
    SubElement(svg, "text", {"class": kind, "x": str(x), "y": str(y), "text-anchor": anchor}).text = text
