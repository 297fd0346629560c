"""Where a check's effect lies between its margins, as one small inline SVG: the 95 % anytime-valid interval as a bar,
the two margins as lines. It fills in as evidence comes: the bar shrinks from the whole width to the effect.

Ratios are drawn on a logarithmic scale around 1x, differences on a linear one around 0. The half whose end is worse
than stable is right. Called by whoever shows verdicts live.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from xml.etree.ElementTree import Element, SubElement, tostring

from graylift.domain.judgement import Verdict
from graylift.domain.spec import Margin, MarginKind

WIDTH, HEIGHT = 240, 26
_REACH = 1.6
"""The scale ends at this many times the wider margin, on either side."""


def gauge_from(verdict: Verdict, rollback: Margin, promote: Margin) -> str:
    """promote: the margin of the stage the verdict is of."""
    scale = _scale(rollback)
    most = _REACH * max(abs(scale(rollback.value)), abs(scale(promote.value)))
    worse = -1.0 if rollback.value < 0 else 1.0

    def x(value: float | None, unbounded: float) -> float:
        place = unbounded if value is None else worse * scale(value) / most
        return round(WIDTH / 2 * (1 + min(1.0, max(-1.0, place))), 1)

    ends = sorted((x(verdict.effect_low, -worse), x(verdict.effect_high, worse)))
    svg = Element(
        "svg", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", preserveAspectRatio="none", attrib={"class": "gauge"}
    )
    SubElement(
        svg, "title"
    ).text = f"{verdict.check}: effect between the margins {rollback} (rollback) and {promote} (promote)"
    _rect(svg, "ground", 0, WIDTH, 10, 6)
    known = verdict.effect_low is not None or verdict.effect_high is not None
    _rect(svg, "effect" if known else "effect unknown", ends[0], max(ends[1] - ends[0], 2.0), 8, 10)
    for kind, place in (("none", WIDTH / 2), ("rollback", x(rollback.value, 1)), ("promote", x(promote.value, 1))):
        SubElement(svg, "line", {"class": kind, "x1": str(place), "x2": str(place), "y1": "3", "y2": str(HEIGHT - 3)})
    return tostring(svg, encoding="unicode")


def _scale(margin: Margin) -> Callable[[float], float]:
    return _logarithm if margin.kind is MarginKind.RATIO else float


def _logarithm(ratio: float) -> float:
    return math.log(max(ratio, 1e-9))


def _rect(svg: Element, kind: str, left: float, width: float, top: float, height: float) -> None:
    places = {"x": str(left), "width": str(round(width, 1)), "y": str(top), "height": str(height), "rx": "2"}
    SubElement(svg, "rect", {"class": kind, **places})
