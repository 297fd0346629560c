"""Templates of the page, with the words they use. Called by `html` and `markdown`."""

from __future__ import annotations

from collections.abc import Callable

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from graylift.domain.spec import Metric, ShadowCheck
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


def metrics_of(facts: Facts) -> dict[str, Metric]:
    """The metric of each check, by the check's name."""
    of_pairs = {
        ShadowCheck.ERRORS.value: Metric.ERRORS,
        ShadowCheck.LATENCY.value: Metric.LATENCY,
        ShadowCheck.AGREEMENT.value: Metric.ERRORS,  # a share of pairs, too
    }
    return {check.name: check.metric for check in facts.release.spec.judge.checks} | of_pairs
