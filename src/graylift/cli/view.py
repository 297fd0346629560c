"""A release as a terminal shows it: the stages as a track, both arms, each check's verdict and why, the latest events.

Built from values alone, so that `run`, `status` and their tests draw the same picture. When to draw, and where the
values come from, is `live.py`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from graylift.domain.evidence import IntervalReport
from graylift.domain.judgement import Ruling
from graylift.domain.release import CheckOutcome, CheckResult, Event, Phase, Release
from graylift.domain.weights import Weights
from graylift.report.moment import RECENT_S, ArmNow, arms_from
from graylift.report.shadow import lines_from

_PHASE_STYLE = {
    Phase.PROMOTED: "bold green",
    Phase.ROLLED_BACK: "bold red",
    Phase.ROLLING_BACK: "bold red",
    Phase.ROLLBACK_FAILED: "bold white on red",
    Phase.REJECTED: "bold red",
    Phase.PAUSED: "bold yellow",
}
_BEFORE_TRAFFIC = (Phase.PENDING, Phase.CHECKING, Phase.STARTING, Phase.REJECTED)
_RULING_STYLE = {Ruling.PASS: "green", Ruling.FAIL: "bold red", Ruling.INCONCLUSIVE: "yellow"}
_OUTCOME_STYLE = {
    CheckOutcome.PASS: "green",
    CheckOutcome.FAIL: "bold red",
    CheckOutcome.INCONCLUSIVE: "yellow",
    CheckOutcome.SKIPPED: "dim",
}


@dataclass(frozen=True, slots=True)
class View:
    """What is shown of one release. `weights` are those in force; `events` are its own, oldest first."""

    release: Release
    weights: Weights
    stable: ArmNow
    candidate: ArmNow
    events: tuple[Event, ...]


def view_from(release: Release, weights: Weights, reports: Sequence[IntervalReport], events: Sequence[Event]) -> View:
    _, (stable, candidate) = arms_from(release, weights, reports)
    return View(release, weights, stable, candidate, tuple(e for e in events if e.release_id == release.id))


def render(view: View, now: float, most_events: int = 8) -> RenderableType:
    """The whole picture, for a terminal of any width."""
    release = view.release
    parts: list[RenderableType] = [
        _headline(release, now),
        track(release),
        Text(release.reason, style="italic"),
        Text(),
    ]
    if release.phase in _BEFORE_TRAFFIC and not release.done:
        parts.append(checklist(release.checks or ()))
    else:
        parts += [_arms(view), Text(), _verdicts(release)]
        if release.judgement is not None and release.judgement.shadow is not None:
            parts.extend(Text(f"shadow: {line}", style="dim") for line in lines_from(release.judgement.shadow))
    parts.append(Text())
    # What the checklist above says in full is not said again.
    events = [event for event in view.events if event.kind != "CHECK"]
    parts.extend(
        Text(line_from_event(event), style="dim", no_wrap=True, overflow="ellipsis") for event in events[-most_events:]
    )
    return Group(*parts)


def on_traffic(release: Release) -> bool:
    return release.phase in (Phase.PROGRESSING, Phase.PAUSED, Phase.PROMOTING)


def track(release: Release) -> Text:
    """The stages in a row; where it stands is bright, what is done is green, what never came stays dim."""
    text = Text()
    lost = release.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK, Phase.ROLLBACK_FAILED, Phase.REJECTED)
    here = on_traffic(release)
    passed = release.stage if here or lost else (len(release.spec.stages) if release.phase is Phase.PROMOTED else 0)
    for index, stage in enumerate(release.spec.stages):
        if index:
            text.append(" ── ", style="dim")
        label = str(stage) + (" watch" if stage.is_watch else "")
        if index < passed:
            text.append(f"✓ {label}", style="green")
        elif lost and index == passed and release.done:
            text.append(f"✗ {label}", style="bold red")
        elif here and index == passed:
            text.append(f"● {label}", style="bold cyan")
        else:
            text.append(f"○ {label}", style="dim")
    return text


def checklist(results: Sequence[CheckResult], *, evidence: bool = False) -> Table:
    """The pre-release checks: outcome, name and sentence of each, with its evidence below if that is asked for."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, width=max(len(outcome.value) for outcome in CheckOutcome))
    table.add_column(no_wrap=True, min_width=len("build candidate"))
    table.add_column(overflow="fold")
    for result in results:
        said = Text(result.sentence)
        if evidence:
            said.append("".join(f"\n{line}" for line in result.evidence), style="dim")
        table.add_row(outcome_mark(result.outcome), result.check, said)
    return table


def outcome_mark(outcome: CheckOutcome) -> Text:
    return Text(outcome.value, style=_OUTCOME_STYLE[outcome])


def phase_style(phase: Phase) -> str:
    return _PHASE_STYLE.get(phase, "bold cyan")


def line_from_event(event: Event) -> str:
    """`12:03:41  PROGRESSING  text` in local time, with the person if it was one."""
    at = datetime.fromtimestamp(event.at_s, UTC).astimezone().strftime("%H:%M:%S")
    by = "" if event.by == "graylift" or f"by {event.by}" in event.text else f" (by {event.by})"
    return f"{at}  {event.kind:11}  {event.text}{by}"


def line_from_view(view: View) -> str:
    """One line for where lines are all there is: a log, a pipe."""
    release = view.release
    arms = "; ".join(map(_arm_line, (view.stable, view.candidate)))
    rulings = ", ".join(f"{v.check} {v.ruling.value}" for v in release.judgement.verdicts) if release.judgement else ""
    at = release.current_stage if release.current_stage.shadow is not None and on_traffic(release) else view.weights
    return f"{release.id} {release.phase.value} at {at}: {arms}" + (f" [{rulings}]" if rulings else "")


def _arm_line(arm: ArmNow) -> str:
    p50_s, p99_s = arm.latency.quantiles((0.5, 0.99))
    line = f"{arm.role.value} {arm.revision}: {arm.requests_per_s:.0f} req/s, errors {_share(arm.failed_share)},"
    line += f" p50 {_duration(p50_s)}, p99 {_duration(p99_s)}"
    if arm.ttft.count:
        line += f", ttft p95 {_duration(arm.ttft.quantile(0.95))}, {_duration(arm.tpot.quantile(0.95))}/token"
    return line


def _headline(release: Release, now: float) -> Text:
    text = Text()
    text.append(release.id, style="bold")
    text.append(f"  {release.spec.stable.name} → {release.spec.candidate.name}   ")
    text.append(release.phase.value, style=phase_style(release.phase))
    end = release.finished_s if release.finished_s is not None else now
    text.append(f"   {_clock(end - release.created_s)}", style="dim")
    return text


def _arms(view: View) -> Table:
    table = Table(box=None, pad_edge=False, title_justify="left")
    streams = any(arm.ttft.count for arm in (view.stable, view.candidate))
    for heading in ("arm", "weight", "req/s", "errors", "p50", "p99", *(("ttft p95", "tpot p95") if streams else ())):
        table.add_column(heading, justify="left" if heading == "arm" else "right", style=None, header_style="dim")
    table.columns[0].header = f"last {RECENT_S:g} s"
    for arm, weights in ((view.stable, Weights(view.weights.stable)), (view.candidate, view.weights)):
        table.add_row(
            f"{arm.role.value} {arm.revision}",
            str(weights),
            f"{arm.requests_per_s:.1f}",
            Text(_share(arm.failed_share), style="bold red" if arm.failed_share else ""),
            _duration(arm.latency.quantile(0.5)),
            _duration(arm.latency.quantile(0.99)),
            *((_duration(arm.ttft.quantile(0.95)), _duration(arm.tpot.quantile(0.95))) if streams else ()),
        )
    return table


def _verdicts(release: Release) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    if release.judgement is not None:
        for verdict in release.judgement.verdicts:
            ruling = Text(verdict.ruling.value, style=_RULING_STYLE[verdict.ruling])
            table.add_row(verdict.check, ruling, verdict.sentence)
    return table


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.1f} %"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.2f} s"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
