"""Templates of the page, with the words they use. Called by `html` and `markdown`."""

from __future__ import annotations

from collections.abc import Callable

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from graylift.domain.spec import Check, Margin, MarginKind, Metric, ShadowCheck
from graylift.report import shadow, words
from graylift.report.facts import Facts

_WORDS: dict[str, Callable[..., object]] = {
    "utc": words.utc,
    "span": words.span,
    "latency": words.latency,
    "pace": words.pace,
    "score": words.score,
    "share": words.share,
    "count": words.count,
    "measured": words.measured,
    "effect": words.effect,
    "tally": words.tally,
    "shadow": shadow.lines_from,
}


def template(name: str, *, autoescape: bool, finalize: Callable[[object], object] | None = None) -> Template:
    """The template file `name` of this package; a name it does not know is an error, not an empty word."""
    environment = Environment(
        loader=PackageLoader("graylift", "report"),
        autoescape=autoescape,  # noqa: S701 -- Markdown escapes in `finalize`
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(_WORDS)
    return environment.get_template(name)


def checks_of(facts: Facts) -> dict[str, Check]:
    """What is judged, by name: on traffic, and of shadowed pairs, where errors and agreement are shares."""
    share, ratio = Margin(MarginKind.POINTS, 0.0), Margin(MarginKind.RATIO, 1.0)
    of_pairs = {
        ShadowCheck.ERRORS.value: Check(Metric.ERRORS, None, share, share),
        ShadowCheck.LATENCY.value: Check(Metric.LATENCY, 0.5, ratio, ratio),
        ShadowCheck.AGREEMENT.value: Check(Metric.ERRORS, None, share, share),
    }
    return {check.name: check for check in facts.release.spec.judge.checks} | of_pairs
