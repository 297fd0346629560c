"""A plain stencil-like lettering, A-Z and 0-9, drawn with numpy, so that the demo needs neither a font nor a renderer.

A glyph is a few strokes of even width on a unit square (x to the right, y down); a pixel's ink falls off with its
distance to the nearest stroke, which antialiases at any size and slant. Called by `demo.containers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
Stroke = Sequence[Point]

GLYPH_WIDTH, GAP, SPACE = 0.58, 0.22, 0.28
"""Widths as shares of the height of a capital."""


def _arc(centre: Point, radii: Point, degrees: Point) -> list[Point]:
    """Points of an ellipse's arc. 0 degrees is right, 90 is down (y points down)."""
    angles = np.radians(np.linspace(*degrees, 13))
    x, y = centre[0] + radii[0] * np.cos(angles), centre[1] + radii[1] * np.sin(angles)
    return list(zip(x.tolist(), y.tolist(), strict=True))


_STEM: Stroke = [(0, 0), (0, 1)]
_RING: Stroke = _arc((0.5, 0.5), (0.5, 0.5), (0, 360))
_UPPER_BOWL: Stroke = [(0, 0), *_arc((0.6, 0.26), (0.4, 0.26), (-90, 90)), (0, 0.52)]

GLYPHS: Mapping[str, Sequence[Stroke]] = {
    "A": ([(0, 1), (0.5, 0), (1, 1)], [(0.18, 0.66), (0.82, 0.66)]),
    "B": (
        _STEM,
        [(0, 0), *_arc((0.6, 0.24), (0.34, 0.24), (-90, 90)), (0, 0.48)],
        [(0, 0.48), *_arc((0.6, 0.74), (0.4, 0.26), (-90, 90)), (0, 1)],
    ),
    "C": (_arc((0.55, 0.5), (0.55, 0.5), (-45, -315)),),
    "D": (_STEM, [(0, 0), *_arc((0.4, 0.5), (0.6, 0.5), (-90, 90)), (0, 1)]),
    "E": ([(1, 0), (0, 0), (0, 1), (1, 1)], [(0, 0.48), (0.8, 0.48)]),
    "F": ([(1, 0), (0, 0), (0, 1)], [(0, 0.5), (0.8, 0.5)]),
    "G": ([*_arc((0.52, 0.5), (0.52, 0.5), (-45, -320)), (1, 0.82), (1, 0.54), (0.58, 0.54)],),
    "H": (_STEM, [(1, 0), (1, 1)], [(0, 0.48), (1, 0.48)]),
    "I": ([(0.5, 0), (0.5, 1)],),
    "J": ([(0.85, 0), *_arc((0.43, 0.68), (0.42, 0.32), (0, 170))],),
    "K": (_STEM, [(1, 0), (0, 0.62)], [(0.36, 0.4), (1, 1)]),
    "L": ([(0, 0), (0, 1), (0.95, 1)],),
    "M": ([(0, 1), (0, 0), (0.5, 0.68), (1, 0), (1, 1)],),
    "N": ([(0, 1), (0, 0), (1, 1), (1, 0)],),
    "O": (_RING,),
    "P": (_STEM, _UPPER_BOWL),
    "Q": (_RING, [(0.6, 0.72), (1.02, 1.06)]),
    "R": (_STEM, _UPPER_BOWL, [(0.5, 0.52), (1, 1)]),
    "S": ([*_arc((0.5, 0.25), (0.46, 0.25), (-25, -250)), *_arc((0.5, 0.75), (0.48, 0.25), (-70, 155))],),
    "T": ([(0, 0), (1, 0)], [(0.5, 0), (0.5, 1)]),
    "U": ([(0, 0), *_arc((0.5, 0.62), (0.5, 0.38), (180, 0)), (1, 0)],),
    "V": ([(0, 0), (0.5, 1), (1, 0)],),
    "W": ([(-0.05, 0), (0.22, 1), (0.5, 0.2), (0.78, 1), (1.05, 0)],),
    "X": ([(0, 0), (1, 1)], [(1, 0), (0, 1)]),
    "Y": ([(0, 0), (0.5, 0.5), (1, 0)], [(0.5, 0.5), (0.5, 1)]),
    "Z": ([(0, 0), (1, 0), (0, 1), (1, 1)],),
    "0": (_arc((0.5, 0.5), (0.44, 0.5), (0, 360)),),
    "1": ([(0.15, 0.22), (0.55, 0), (0.55, 1)],),
    "2": ([*_arc((0.5, 0.29), (0.46, 0.29), (-165, 35)), (0.03, 1), (1, 1)],),
    "3": (_arc((0.48, 0.25), (0.42, 0.25), (-155, 90)), _arc((0.48, 0.74), (0.48, 0.26), (-90, 155))),
    "4": ([(0.76, 1), (0.76, 0), (0, 0.7), (1, 0.7)],),
    "5": ([(0.9, 0), (0.16, 0), (0.1, 0.46), *_arc((0.48, 0.67), (0.5, 0.33), (-130, 145))],),
    "6": (_arc((0.5, 0.68), (0.46, 0.32), (0, 360)), [(0.8, 0), *_arc((0.62, 0.66), (0.58, 0.6), (-115, -180))]),
    "7": ([(0, 0), (1, 0), (0.36, 1)],),
    "8": (_arc((0.5, 0.25), (0.4, 0.25), (0, 360)), _arc((0.5, 0.75), (0.47, 0.25), (0, 360))),
    "9": (_arc((0.5, 0.32), (0.46, 0.32), (0, 360)), [(0.2, 1), *_arc((0.38, 0.34), (0.58, 0.6), (65, 0))]),
}


def draw(
    text: str, shape: tuple[int, int], *, capital: float, stroke: float, slant: float, offset: Point
) -> NDArray[np.float64]:
    """Ink in [0, 1] of shape (height, width): the text, centred.

    capital, stroke: height of a letter and width of its strokes, pixels
    slant:  pixels to the right for each pixel upwards
    offset: (right, down) from the centre, pixels
    KeyError for a character that is neither in GLYPHS nor a space.
    """
    height, width = shape
    advance = {True: SPACE * capital, False: (GLYPH_WIDTH + GAP) * capital}
    pen = (width - sum(advance[c == " "] for c in text) + GAP * capital) / 2 + offset[0]
    top = (height - capital) / 2 + offset[1]
    starts: list[Point] = []
    ends: list[Point] = []
    for character in text:
        if character != " ":
            for points in GLYPHS[character]:
                placed = [
                    (pen + GLYPH_WIDTH * capital * x + slant * capital * (0.5 - y), top + capital * y)
                    for x, y in points
                ]
                starts += placed[:-1]
                ends += placed[1:]
        pen += advance[character == " "]
    nearest = np.full(shape, np.inf)
    reach = int(stroke / 2 + 2)
    for start, end in zip(np.array(starts), np.array(ends), strict=True):
        (left, low), (right, high) = (
            np.minimum(start, end).astype(int) - reach,
            np.maximum(start, end).astype(int) + reach,
        )
        window = (slice(max(0, low), max(0, high + 1)), slice(max(0, left), max(0, right + 1)))
        y, x = np.ogrid[window[0].start : min(height, window[0].stop), window[1].start : min(width, window[1].stop)]
        along = end - start
        share = np.clip(((x - start[0]) * along[0] + (y - start[1]) * along[1]) / max(float(along @ along), 1e-9), 0, 1)
        away = np.hypot(x - start[0] - share * along[0], y - start[1] - share * along[1])
        nearest[window] = np.minimum(nearest[window], away)
    return np.clip(stroke / 2 + 0.5 - nearest, 0, 1)
