"""Quantities as people write them: `1h30m`, `50/s`, `0.5%`, `1.10x`, `0.5pp`, `-0.01`. Text in, number out,
ValueError with the cure.

It must not know where the text stands. Called by `values`.
"""

from __future__ import annotations

import re
from decimal import Decimal

from graylift.domain.limits import Quota
from graylift.domain.spec import Margin, MarginKind

_DURATION = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?(?:(\d{1,9})ms)?", re.ASCII)
_DECIMAL = r"((?:0|[1-9]\d{0,8})(?:\.\d{1,9})?)"
_PERCENTAGE = re.compile(rf"{_DECIMAL}%", re.ASCII)
_RATE = re.compile(rf"{_DECIMAL}/([sm])", re.ASCII)
_QUOTA = re.compile(r"([1-9]\d{0,8})/([smh])", re.ASCII)
_MARGIN = re.compile(rf"{_DECIMAL}(x|pp)", re.ASCII)
_DIFFERENCE = re.compile(rf"([-+]?){_DECIMAL}", re.ASCII)
_LARGEST_DIFFERENCE = Decimal("0.9")


def seconds_from_text(text: str) -> float:
    """Seconds, exact to the millisecond, of hours, minutes, seconds and milliseconds in this order: `1h30m`."""
    match = _DURATION.fullmatch(text)
    if not match or not text:
        raise ValueError("write whole numbers with a unit (h, m, s, ms), the largest first: 500ms, 10s, 1h30m")
    hours, minutes, seconds, millis = (int(part or 0) for part in match.groups())
    return (((hours * 60 + minutes) * 60 + seconds) * 1000 + millis) / 1000


def share_from_text(text: str) -> float:
    """The share, 0.01 for `1%`. Above 100 % is refused."""
    match = _PERCENTAGE.fullmatch(text)
    if not match:
        raise ValueError("write a percentage: 1%, 0.5%")
    percent = Decimal(match[1])
    if percent > 100:
        raise ValueError("write a percentage of at most 100%")
    return float(percent / 100)


def rate_from_text(text: str) -> float:
    """How many a second, of `50/s`, `0.5/s`, `3000/m`."""
    match = _RATE.fullmatch(text)
    if not match:
        raise ValueError("write a rate for each second or minute: 50/s, 0.5/s, 3000/m")
    return float(Decimal(match[1]) / (60 if match[2] == "m" else 1))


def quota_from_text(text: str) -> Quota:
    """So many in a second, minute or hour, of `100/s`, `60000/m`, `1000/h`."""
    match = _QUOTA.fullmatch(text)
    if not match:
        raise ValueError("write a whole number for each second, minute or hour: 100/s, 60000/m, 1000/h")
    return Quota(int(match[1]), {"s": 1.0, "m": 60.0, "h": 3600.0}[match[2]])


def margin_from_text(text: str) -> Margin:
    """A ratio above 1 (`1.10x`), percentage points from above 0 to 100 (`0.5pp`), or a score's difference with its sign
    (`-0.01`)."""
    if difference := _DIFFERENCE.fullmatch(text):
        return _margin_of_score(difference[1], Decimal(difference[2]))
    match = _MARGIN.fullmatch(text)
    if not match:
        raise ValueError(
            "write a ratio (1.10x: a tenth more than stable), percentage points (0.5pp more than stable) or, for a "
            "score, a difference (-0.01: lower by a hundredth of its scale)"
        )
    number = Decimal(match[1])
    if match[2] == "x":
        if not 1 < number <= 1000:
            raise ValueError("write a ratio above 1x: 1.10x is a tenth more than stable")
        return Margin(MarginKind.RATIO, float(number))
    if not 0 < number <= 100:
        raise ValueError("write percentage points above 0pp and up to 100pp: 0.5pp is half a percent of all requests")
    return Margin(MarginKind.POINTS, float(number / 100))


def _margin_of_score(sign: str, size: Decimal) -> Margin:
    if not sign:
        raise ValueError(
            f"write a unit (1.10x, 0.5pp) or, for a score, the sign that says which way is worse: -{size} where "
            f"lower is, +{size} where higher is"
        )
    if not 0 < size <= _LARGEST_DIFFERENCE:
        raise ValueError("write a difference of scores from 0 to 1, not 0 and at most 0.9: -0.01, +0.05")
    return Margin(MarginKind.SCORE, float(-size if sign == "-" else size))
