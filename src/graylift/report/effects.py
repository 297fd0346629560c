"""How sure the judge was, look by look: the anytime-valid interval of each check's effect, as a plot.

The looks are given: whoever asks for a page asks the judge, which this package does not know. Called by `html`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graylift.domain.spec import Check, Margin, MarginKind
from graylift.domain.weights import Weights
from graylift.report.plot import Line, Mark, Plot, count_ticks

MOST_LOOKS = 400


@dataclass(frozen=True, slots=True)
class EffectLook:
    """One check at one look. candidate_n: candidate requests of the release so far; low, high: None while unbounded."""

    candidate_n: int
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class CheckEffects:
    """One check over the release. stages: (candidate requests before it, its weight)."""

    check: Check
    looks: tuple[EffectLook, ...]
    stages: tuple[tuple[int, Weights], ...]


def effect_plots(effects: Sequence[CheckEffects]) -> Iterator[Plot]:
    """One for each check of which an interval is known at some look."""
    for one in effects:
        looks = one.looks[:: max(1, len(one.looks) // MOST_LOOKS)]
        if not any(look.low is not None or look.high is not None for look in looks):
            continue
        kind = one.check.rollback_if_worse.kind
        ratio = kind is MarginKind.RATIO
        first, last = looks[0].candidate_n, max(looks[-1].candidate_n, looks[0].candidate_n + 1)
        yield Plot(
            title=f"{one.check.name}: 95 % interval of {'candidate / stable' if ratio else 'candidate - stable'}, "
            "valid at every look, against candidate requests",
            lines=(
                *(Line("limit", _level(margin, first, last)) for margin in _margins(one.check)),
                Line("candidate", tuple((float(look.candidate_n), look.low) for look in looks)),
                Line("candidate", tuple((float(look.candidate_n), look.high) for look in looks)),
            ),
            marks=tuple(Mark(float(number), "stage", str(weights)) for number, weights in one.stages),
            from_s=float(first),
            to_s=float(last),
            label=_LABELS[kind],
            logarithmic=ratio,
            along=count_ticks,
        )


def _margins(check: Check) -> tuple[Margin, Margin]:
    return check.rollback_if_worse, check.promote_if_within


def _level(margin: Margin, first: int, last: int) -> tuple[tuple[float, float | None], ...]:
    return (float(first), margin.value), (float(last), margin.value)


def _ratio(value: float) -> str:
    return f"{value:g}x"


def _points(value: float) -> str:
    return f"{value * 100:+.3g}pp"


def _score(value: float) -> str:
    return f"{value:+.3g}"


_LABELS = {MarginKind.RATIO: _ratio, MarginKind.POINTS: _points, MarginKind.SCORE: _score}
