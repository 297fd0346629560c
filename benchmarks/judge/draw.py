"""The plots and the table of docs/judge.md, from the figures that compare.py keeps: `python benchmarks/judge/draw.py`.

Reads benchmarks/judge/figures/*.json, writes docs/images/judge-*.svg and prints the table.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from compare import ARGO, FLAGGER, OURS, OURS_BARE, PEEKING
from judged_releases import exact_limits

FIGURES = Path(__file__).parent / "figures"
IMAGES = Path(__file__).parents[2] / "docs" / "images"
JUDGES = (
    (OURS_BARE, "ours, no margins", "#0b7a4b", "circle"),
    (OURS, "ours, margins 1.2x / 1.05x / 1.10x", "#7bc6a4", "circle"),
    ("Kayenta against production, critical", "Kayenta, production, critical", "#b45309", "square"),
    ("Kayenta against production, default", "Kayenta, production, default", "#eab676", "square"),
    ("Kayenta against baseline, critical", "Kayenta, equal baseline, critical", "#6d28d9", "square"),
    ("Kayenta against baseline, default", "Kayenta, equal baseline, default", "#c4b5fd", "square"),
    (PEEKING, "t-test each minute", "#9ca3af", "cross"),
    (FLAGGER, "Flagger's threshold", "#6b7280", "cross"),
    (ARGO, "Argo's threshold", "#374151", "cross"),
)
WIDTH, LEFT, RIGHT, ROW = 860, 190, 90, 34


@dataclass
class Canvas:
    """An SVG that is white underneath, so that it can be read on any page."""

    height: int
    title: str
    root: Element = field(init=False)

    def __post_init__(self) -> None:
        self.root = Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": f"0 0 {WIDTH} {self.height}",
                "role": "img",
                "font-family": "sans-serif",
                "font-size": "12",
            },
        )
        SubElement(self.root, "title").text = self.title
        self.add("rect", x=0, y=0, width=WIDTH, height=self.height, fill="#ffffff")

    def add(self, kind: str, **attributes: object) -> Element:
        return SubElement(self.root, kind, {k.replace("_", "-"): str(v) for k, v in attributes.items()})

    def text(self, x: float, y: float, text: str, anchor: str = "start", **attributes: object) -> None:
        self.add("text", x=round(x, 1), y=round(y, 1), text_anchor=anchor, fill="#1f2937", **attributes).text = text

    def mark(self, shape: str, x: float, y: float, colour: str) -> None:
        x, y = round(x, 1), round(y, 1)
        if shape == "circle":
            self.add("circle", cx=x, cy=y, r=6, fill=colour)
        elif shape == "square":
            self.add("rect", x=x - 5, y=y - 5, width=10, height=10, fill=colour)
        else:
            path = f"M{x - 5} {y - 5}L{x + 5} {y + 5}M{x - 5} {y + 5}L{x + 5} {y - 5}"
            self.add("path", d=path, stroke=colour, stroke_width=2)

    def save(self, name: str) -> None:
        (IMAGES / name).write_text(tostring(self.root, encoding="unicode") + "\n", encoding="utf-8")


def detection(figures: list[dict[str, Any]]) -> None:
    """A row for each regression, a mark for each judge at its median; those that mostly never find it at the right."""
    rows = list(dict.fromkeys(figure["row"] for figure in figures))
    found = {(figure["row"], figure["judge"]): figure for figure in figures}
    top = 40 + 16 * math.ceil(len(JUDGES) / 3)
    canvas = Canvas(top + ROW * len(rows) + 50, "Candidate requests until rollback, by regression and judge")
    _legend(canvas, 16)
    high = 4.8  # powers of ten, from 0
    right = WIDTH - RIGHT

    def x(value: float) -> float:
        return LEFT + math.log10(max(value, 1)) / high * (right - LEFT)

    bottom = top + ROW * len(rows)
    for power in range(int(high) + 1):
        canvas.add("line", x1=round(x(10**power), 1), y1=top, x2=round(x(10**power), 1), y2=bottom, stroke="#e5e7eb")
        canvas.text(x(10**power), bottom + 16, f"{10**power:,}", "middle")
    canvas.text(right + RIGHT / 2, bottom + 16, "never", "middle")
    canvas.text((LEFT + right) / 2, bottom + 36, "candidate requests until rollback (median)", "middle")
    for number, row in enumerate(rows):
        y = top + ROW * (number + 0.5)
        canvas.text(LEFT - 12, y + 4, row, "end")
        canvas.add("line", x1=LEFT, y1=y, x2=WIDTH - 10, y2=y, stroke="#f3f4f6")
        never = 0
        for name, _, colour, shape in reversed(JUDGES):
            median = found[row, name]["median"]
            if median is None:
                never += 1
            canvas.mark(shape, x(median) if median is not None else right + 10 + never * 11, y, colour)
    canvas.save("judge-detection.svg")


def false_rollback(figures: list[dict[str, Any]], boundary: list[dict[str, Any]]) -> None:
    """Each judge's share of equal revisions that it rolls back, with its exact 95 % limits, on a scale of powers. Of
    ours without margins there are more releases (`boundary`)."""
    equal = {figure["judge"]: figure for figure in figures if figure["case"] == "equal"}
    equal[OURS_BARE] = boundary[0]
    top, row = 30, 26
    canvas = Canvas(top + row * len(JUDGES) + 50, "Equal revisions rolled back, by judge")
    left, bottom = 310, top + row * len(JUDGES)

    def x(share: float) -> float:
        return left + (math.log10(max(share, 1e-4)) + 4) / 4 * (WIDTH - left - 40)

    for share in (0.0001, 0.001, 0.01, 0.1, 1.0):
        canvas.add("line", x1=x(share), y1=top, x2=x(share), y2=bottom, stroke="#e5e7eb")
        canvas.text(x(share), bottom + 16, f"{share * 100:g} %" if share > 0.0001 else "0", "middle")
    canvas.add("line", x1=x(0.01), y1=top - 8, x2=x(0.01), y2=bottom, stroke="#dc2626", stroke_dasharray="4 3")
    canvas.text(x(0.01), top - 12, "the bound that ours was asked for", "middle")
    canvas.text((left + WIDTH) / 2, bottom + 36, "equal revisions that were rolled back (95 % limits)", "middle")
    for number, (name, label, colour, shape) in enumerate(JUDGES):
        y = top + row * (number + 0.5)
        low, high = exact_limits(equal[name]["failed"], equal[name]["releases"])
        canvas.text(left - 12, y + 4, f"{label} (n={equal[name]['releases']:,})", "end")
        canvas.add("line", x1=round(x(low), 1), y1=y, x2=round(x(high), 1), y2=y, stroke=colour, stroke_width=2)
        canvas.mark(shape, x(equal[name]["failed"] / equal[name]["releases"]), y, colour)
    canvas.save("judge-false-rollback.svg")


def table(figures: list[dict[str, Any]], equal: list[dict[str, Any]]) -> None:
    """Median candidate requests | mean bad answers | power, a row for each regression."""
    found = {(figure["row"], figure["judge"]): figure for figure in figures}
    print("| | " + " | ".join(label for _, label, _, _ in JUDGES) + " |\n|" + "---|" * (1 + len(JUDGES)))
    for case, label in (("equal", "equal revisions rolled back"), ("at every margin", "at every margin rolled back")):
        rates = {figure["judge"]: figure["failed"] / figure["releases"] for figure in equal if figure["case"] == case}
        print(f"| {label} | " + " | ".join(f"{rates[name]:.2%}" for name, *_ in JUDGES) + " |")
    for row in dict.fromkeys(figure["row"] for figure in figures):
        cells: list[str] = []
        for name, *_ in JUDGES:
            one = found[row, name]
            median = "never" if one["median"] is None else f"{one['median']:,.0f}"
            early = f" ({one['early']:.0%} before it began)" if one["early"] else ""
            cells.append(f"{median}, {one['bad']:,.0f}, {one['power']:.0%}{early}")
        print(f"| {row} | " + " | ".join(cells) + " |")


def _legend(canvas: Canvas, y: float) -> None:
    for number, (_, label, colour, shape) in enumerate(JUDGES):
        column, line = number % 3, number // 3
        canvas.mark(shape, 24 + column * 280, y + 16 * line, colour)
        canvas.text(36 + column * 280, y + 16 * line + 4, label)


def main() -> None:
    found, equal, boundary = (
        json.loads((FIGURES / f"{name}.json").read_text()) for name in ("detection", "equal", "boundary")
    )
    detection(found)
    false_rollback(equal, boundary)
    table(found, equal)


if __name__ == "__main__":
    main()
