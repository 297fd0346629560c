"""The judge, asked at one look: its stored state in, its newest words and its next state out. Pure; called by `plan`.

It listens from the first moment of a release, since stable's traffic before the first stage already tells what is
usual. What is not whole never reaches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graylift import rollout
from graylift.analysis import judge as judges
from graylift.domain.evidence import IntervalReport
from graylift.domain.judgement import Judgement
from graylift.domain.release import Phase, Release, Service

_ON_TRAFFIC = (Phase.PROGRESSING, Phase.PAUSED, Phase.PROMOTING)


@dataclass(frozen=True, slots=True)
class Judged:
    """state: to be stored, None when the release has ended; judgement: None while there is nothing to judge;
    lost: why the evidence so far is lost and begins anew, None if it is not"""

    state: str | None
    judgement: Judgement | None
    lost: str | None = None


def judged(service: Service, release: Release, text: str | None, reports: Sequence[IntervalReport]) -> Judged:
    """What the judge says after `reports`. `text` is its stored state."""
    if release.phase.is_final:
        return Judged(text, release.judgement)
    seen = [
        (windows, shadows)
        for report in reports
        if report.gap is None
        for windows in [tuple(window for window in report.windows if window.service == service.name)]
        for shadows in [tuple(window for window in report.shadows if window.service == service.name)]
        if windows or shadows
    ]
    if not seen:
        return Judged(text, release.judgement)
    lost = None
    try:
        state = judges.load(text) if text is not None else _anew(service, release)
    except ValueError as error:
        # Evidence that cannot be read is missing evidence: the stage has to show itself once more.
        state, lost = _anew(service, release), str(error)
    for windows, shadows in seen:
        state = judges.observe(release.spec.judge, state, windows, shadows)
    judgement = judges.judge(release.spec.judge, state) if release.phase in _ON_TRAFFIC else None
    return Judged(judges.dump(state), judgement, lost)


def entered(service: Service, before: Release | None, after: Release, text: str | None) -> str | None:
    """The judge's state after the release went from `before` to `after`."""
    if after.phase.is_final:
        return None
    if before is None or before.id != after.id:
        return judges.dump(_anew(service, after))
    came_on = after.phase in _ON_TRAFFIC and before.phase not in _ON_TRAFFIC
    if not came_on and after.stage == before.stage:
        return text
    try:
        state = _anew(service, after) if text is None else _in_stage(service, after, judges.load(text))
    except ValueError:
        state = _anew(service, after)
    return judges.dump(state)


def _anew(service: Service, release: Release) -> judges.JudgeState:
    state = judges.start(release.spec.judge)
    return _in_stage(service, release, state) if release.phase in _ON_TRAFFIC else state


def _in_stage(service: Service, release: Release, state: judges.JudgeState) -> judges.JudgeState:
    return judges.enter(
        release.spec.judge,
        state,
        release.current_stage,
        rollout.split_of(service, release),
        sticky=release.spec.routing.sticky is not None,
    )
