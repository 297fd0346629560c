"""One page about one release, fit to attach to a change ticket: what came of it, why, and the numbers behind it.

    release, events, interval reports -> facts (series, words) -> html (plot, effects) | markdown | structure (JSON)
                                                               -> explanation, in plain words

Pure. Called by the commands and the demo with the parts of a stored history; a release still in flight has its page,
too.
"""

from __future__ import annotations

from collections.abc import Sequence

from graylift.domain.evidence import IntervalReport
from graylift.domain.release import Event, Release
from graylift.report.effects import CheckEffects, EffectLook
from graylift.report.explanation import explanation_from
from graylift.report.facts import facts_from
from graylift.report.html import html_from
from graylift.report.markdown import markdown_from
from graylift.report.structure import json_from

__all__ = ["CheckEffects", "EffectLook", "explain", "render_html", "render_json", "render_markdown"]


def explain(release: Release, events: Sequence[Event], reports: Sequence[IntervalReport]) -> str:
    """The release retold as sentences, in the order in which it happened."""
    return explanation_from(facts_from(release, events, reports))


def render_html(
    release: Release,
    events: Sequence[Event],
    reports: Sequence[IntervalReport],
    effects: Sequence[CheckEffects] = (),
) -> str:
    """A whole HTML document with plots; it loads nothing and runs nothing. effects: what the judge knew, by look."""
    return html_from(facts_from(release, events, reports), effects)


def render_markdown(release: Release, events: Sequence[Event], reports: Sequence[IntervalReport]) -> str:
    """The same facts without plots."""
    return markdown_from(facts_from(release, events, reports))


def render_json(release: Release, events: Sequence[Event], reports: Sequence[IntervalReport]) -> str:
    """The same facts as numbers; the structure stands in `structure`."""
    return json_from(facts_from(release, events, reports))
