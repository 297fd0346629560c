"""What a page shows, as sections of HTML by the id of their place. Whole sections, made of what is stored now: a page
that takes the newest of each is right, however long it was open or away.

Reads the store (blocking) and asks the pure packages; knows nothing of who looks. Called by `stream` and `pages`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from graylift.api.records import Records
from graylift.api.steering import buttons
from graylift.domain.evidence import IntervalReport
from graylift.domain.judgement import Verdict
from graylift.domain.release import Event, Phase, Release
from graylift.domain.weights import ALL
from graylift.ports import Tracked
from graylift.report import words
from graylift.report.facts import facts_from
from graylift.report.gauge import gauge_from
from graylift.report.html import plots_from
from graylift.report.moment import moment_from
from graylift.report.plot import svg_from
from graylift.report.shadow import lines_from
from graylift.rollout import weights_of

PLOTTED_S = 900.0
"""The plots are of this many seconds up to now; a report's are of the whole release."""
_EVENTS = 200
_TONES = {
    Phase.PROMOTED.value: "good",
    Phase.ROLLED_BACK.value: "bad",
    Phase.ROLLING_BACK.value: "bad",
    Phase.ROLLBACK_FAILED.value: "bad",
    Phase.REJECTED.value: "bad",
    Phase.PAUSED.value: "held",
}


def _tone(phase: Phase | str) -> str:
    return _TONES.get(phase.value if isinstance(phase, Phase) else phase, "faint")


templates = Environment(
    loader=PackageLoader("graylift", "api/templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_FILTERS: dict[str, Callable[..., str]] = {
    "utc": words.utc,
    "span": words.span,
    "latency": words.latency,
    "share": words.share,
    "tally": words.tally,
    "tone": _tone,
}
templates.filters.update(_FILTERS)


def _section(name: str, **values: Any) -> str:
    return templates.get_template(f"_{name}.html.j2").render(**values)


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """A service on the first page. The percentages are of its traffic, now."""

    tracked: Tracked

    @property
    def service(self) -> Any:
        return self.tracked.service

    @property
    def release(self) -> Release | None:
        return self.tracked.release

    @property
    def candidate_percent(self) -> str:
        release = self.tracked.release
        return "0" if release is None else f"{weights_of(release).percent.normalize():f}"

    @property
    def stable_percent(self) -> str:
        release = self.tracked.release
        return "100" if release is None else f"{(100 - weights_of(release).percent).normalize():f}"

    @property
    def stable_name(self) -> str:
        stable, release = self.tracked.service.stable, self.tracked.release
        if stable is not None:
            return stable.name
        return "" if release is None else release.spec.stable.name


def control_section(records: Records, now: float) -> str:
    lease = records.lease()
    return _section("control", acts=lease is not None and lease.until_s > now)


def services_sections(records: Records, now: float) -> dict[str, str]:
    """The first page. StoreError if the store cannot be read."""
    rows = [ServiceRow(tracked) for tracked in records.snapshot().services]
    return {"control": control_section(records, now), "services": _section("services", rows=rows)}


def release_sections(records: Records, release_id: str, now: float) -> dict[str, str]:
    """Everything about one release but its plots. KeyError if there is none of that id; StoreError."""
    tracked = _tracked(records, release_id)
    release = records.release(release_id)
    newest = tracked is not None and tracked.release is not None and tracked.release.id == release.id
    weights = ALL if release.phase is Phase.PROMOTED else weights_of(release)
    moment = moment_from(release, weights, records.recent_reports(release.service, now - 60))
    return {
        "control": control_section(records, now),
        "head": _section("head", release=release),
        "track": _section("track", moment=moment),
        "arms": _section("arms", moment=moment),
        "verdicts": _section("verdicts", judged=list(_judged(release)), shadow=_shadow(release)),
        "steer": _section("steer", buttons=buttons(tracked.service, release, now) if tracked and newest else ()),
        "checks": _section("checks", release=release),
        "events": _section("events", events=_events(records, release_id)),
    }


def plots_section(records: Records, release_id: str, now: float) -> str:
    """What users got in the last PLOTTED_S seconds. KeyError, StoreError as above."""
    release = records.release(release_id)
    reports: tuple[IntervalReport, ...] = tuple(records.recent_reports(release.service, now - PLOTTED_S))
    drawn: list[tuple[str, str]] = []
    if reports and (release.finished_s is None or release.finished_s > now - PLOTTED_S):
        events = tuple(told.event for told in records.events_after(release_id=release_id, limit=_EVENTS))
        facts = facts_from(release, events, reports)
        drawn = [(plot.title, svg_from(plot)) for plot in plots_from(facts, since_s=now - PLOTTED_S)]
    return _section("plots", release=release, plots=drawn, seconds=PLOTTED_S)


def _tracked(records: Records, release_id: str) -> Tracked | None:
    service = release_id.rpartition("-")[0]
    return next((one for one in records.snapshot().services if one.service.name == service), None)


def _judged(release: Release) -> Iterator[tuple[Verdict, str]]:
    """Each verdict of the stage the release is in, or of the last one that had both arms to compare, with its gauge,
    which pairs of answers have not."""
    compared = [record for record in release.done if not release.spec.stages[record.index].is_watch]
    if release.judgement is not None and not release.current_stage.is_watch:
        verdicts, stage = release.judgement.verdicts, release.current_stage
    elif compared:
        verdicts, stage = compared[-1].verdicts, release.spec.stages[compared[-1].index]
    else:
        return
    own = {margin.check: margin.margin for margin in stage.promote_if_within}
    checks = {check.name: check for check in release.spec.judge.checks}
    for verdict in verdicts:
        check = checks.get(verdict.check)
        gauge = ""
        if check is not None:
            gauge = gauge_from(verdict, check.rollback_if_worse, own.get(check.name, check.promote_if_within))
        yield verdict, gauge


def _shadow(release: Release) -> tuple[str, ...]:
    """What the pairs of answers of a shadow stage showed."""
    judgement = release.judgement
    return () if judgement is None or judgement.shadow is None else tuple(lines_from(judgement.shadow))


def _events(records: Records, release_id: str) -> list[Event]:
    """The newest first. What the checklist says in full is not said again."""
    told = records.events_after(release_id=release_id, limit=10 * _EVENTS)
    return [one.event for one in reversed(told) if one.event.kind != "CHECK"][:_EVENTS]
