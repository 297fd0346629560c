"""The page as HTML: one file with its style and its plots inside, which asks nothing of any server.

Called through `graylift.report`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

from graylift.domain.release import Phase
from graylift.domain.weights import NONE, Role
from graylift.report import words
from graylift.report.effects import CheckEffects, effect_plots
from graylift.report.facts import Facts
from graylift.report.plot import Line, Mark, Plot, svg_from
from graylift.report.series import LEAST_REQUESTS, Point, Totals, thickened
from graylift.report.template import checks_of, template

_page = template("page.html.j2", autoescape=True)


def html_from(facts: Facts, effects: Sequence[CheckEffects] = ()) -> str:
    """A whole HTML document. effects: what the judge knew, look by look; without them that plot is left out."""
    return _page.render(
        facts=facts,
        release=facts.release,
        plots=[(plot.title, svg_from(plot)) for plot in plots_from(facts)],
        certainty=[(plot.title, svg_from(plot)) for plot in effect_plots(effects)],
        checks=checks_of(facts),
        least_requests=LEAST_REQUESTS,
    )


def plots_from(facts: Facts, since_s: float = 0.0) -> tuple[Plot, ...]:
    """Weight, rate, errors and latencies over one time axis, from `since_s` on at the earliest; none if the candidate
    never was on traffic."""
    if not facts.stages:
        return ()
    from_s = max(since_s, min([facts.stages[0].entered_s, *(point.start_s for point in facts.stable.series[:1])]))
    marks = tuple(
        Mark(stage.entered_s, "stage", str(stage.stage)) for stage in facts.stages if stage.entered_s >= from_s
    )
    fine = {arm.role: arm.series for arm in facts.arms}
    borders = [stage.entered_s for stage in facts.stages]
    thick = {arm.role: thickened(arm.series, borders) for arm in facts.arms}
    turns = tuple(Mark(turn.at_s, _kind(turn.kind), turn.kind) for turn in facts.turns)

    def plot(
        title: str,
        series: Mapping[Role, Sequence[Point]],
        value: Callable[[Point], float | None],
        label: Callable[[float], str],
        *,
        log: bool = False,
        top: float = 0,
    ) -> Plot:
        lines = tuple(Line(role.value, tuple(_level(points, value))) for role, points in series.items())
        return Plot(title, lines, (*marks, *turns), from_s, facts.until_s, label, least_top=top, logarithmic=log)

    steps = [*facts.steps, (facts.until_s, NONE)]
    weight = Line(
        "candidate",
        tuple(
            (at_s, float(step.percent)) for (one_s, step), (next_s, _) in pairwise(steps) for at_s in (one_s, next_s)
        ),
    )
    streams = (
        plot(
            "Time to first token p95", thick, _of(lambda totals: totals.ttft.quantile(0.95)), _short_latency, log=True
        ),
        plot("Time per output token p95", thick, _of(lambda totals: totals.tpot.quantile(0.95)), _short_pace, log=True),
    )
    return (
        Plot("Candidate's weight", (weight,), (*marks, *turns), from_s, facts.until_s, _percent, 100.0),
        plot("Requests per second", fine, lambda point: point.rate, lambda value: f"{value:g}/s"),
        plot("Failed requests", thick, _failed_percent, _percent, top=1.0),
        plot("Latency p50", thick, _of(lambda totals: totals.p50_s), _short_latency, log=True),
        plot("Latency p99", thick, _of(lambda totals: totals.p99_s), _short_latency, log=True),
        *(streams if facts.streams else ()),
    )


def _of(value: Callable[[Totals], float | None]) -> Callable[[Point], float | None]:
    return lambda point: None if point.totals is None else value(point.totals)


def _level(points: Sequence[Point], value: Callable[[Point], float | None]) -> Iterator[tuple[float, float | None]]:
    """Each value over its whole stretch of time: a slope between two points would claim what nobody measured."""
    for point in points:
        yield point.start_s, value(point)
        yield point.start_s + point.length_s, value(point)


def _kind(phase: str) -> str:
    if phase == Phase.PROMOTED.value:
        return "good"
    return "held" if phase == Phase.PAUSED.value else "bad"


def _failed_percent(point: Point) -> float | None:
    share = None if point.totals is None else point.totals.failed_share
    return None if share is None else share * 100


def _percent(value: float) -> str:
    return f"{value:g} %"


def _short_latency(seconds: float) -> str:
    return words.latency(seconds) if seconds < 1e-3 else f"{seconds * 1000:g} ms" if seconds < 1 else f"{seconds:g} s"


def _short_pace(seconds: float) -> str:
    return f"{_short_latency(seconds)}/token"
