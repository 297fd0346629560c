"""The report of a stored release as text. Called by `graylift report`, `graylift explain` and by the demo.

What the judge knew at each look is not stored; it is found again by giving it the stored evidence once more.
"""

from __future__ import annotations

from enum import Enum
from itertools import groupby
from typing import TYPE_CHECKING, assert_never

from graylift.domain.weights import Role
from graylift.ports import History, ReleaseStore

if TYPE_CHECKING:
    from graylift.report import CheckEffects, EffectLook

MOST_LOOKS = 1_000
"""A release of more intervals than that is looked at in stretches of several: a page must not take minutes."""


class ReportFormat(Enum):
    MARKDOWN = "md"
    HTML = "html"
    JSON = "json"


def report_text(store: ReleaseStore, release_id: str, form: ReportFormat) -> str:
    """One page about one release. KeyError if there is none of that id."""
    from graylift import report  # its templates take a while to load, and `--help` needs only the formats

    history = store.history(release_id)
    parts = history.release, history.events, history.reports
    match form:
        case ReportFormat.MARKDOWN:
            return report.render_markdown(*parts)
        case ReportFormat.HTML:
            return report.render_html(*parts, effects=effects_of(history))
        case ReportFormat.JSON:
            return report.render_json(*parts)
        case _:
            assert_never(form)


def effects_of(history: History) -> tuple[CheckEffects, ...]:
    """The 95 % interval of each check at every look of a release, from its stored evidence."""
    from graylift.analysis import judge
    from graylift.metrics.windows import summed
    from graylift.report import CheckEffects, EffectLook

    release = history.release
    if not release.spec.judge.checks:
        return ()
    splits = {f"{release.id}/{index}": index for index in range(len(release.spec.stages))}
    sticky = release.spec.routing.sticky is not None
    whole = [one for one in history.reports if one.gap is None]
    every = max(1, -(-len(whole) // MOST_LOOKS))
    state, seen, stage = judge.start(release.spec.judge), 0, -1
    looks: dict[str, list[EffectLook]] = {check.name: [] for check in release.spec.judge.checks}
    began: list[tuple[int, int]] = []
    for _, some in groupby(enumerate(whole), lambda one: one[0] // every):
        windows = summed(window for _, report in some for window in report.windows if window.service == release.service)
        newest = max((splits[window.split] for window in windows if window.split in splits), default=-1)
        if newest >= 0 and release.spec.stages[newest].is_watch:
            break  # nothing is left to compare with
        while stage < newest:
            stage += 1
            began.append((seen, stage))
            entered = release.spec.stages[stage], f"{release.id}/{stage}"
            state = judge.enter(release.spec.judge, state, *entered, sticky=sticky)
        state = judge.observe(release.spec.judge, state, windows)
        ours = [window for window in windows if window.split in splits and window.arm is Role.CANDIDATE]
        seen += sum(window.requests for window in ours if window.label is None)
        if stage >= 0:
            for verdict in judge.judge(release.spec.judge, state).verdicts:
                looks[verdict.check].append(EffectLook(seen, verdict.effect_low, verdict.effect_high))
        if state.found:
            break
    marks = tuple((number, release.spec.stages[index].weights) for number, index in began)
    return tuple(
        CheckEffects(check, tuple(looks[check.name]), marks) for check in release.spec.judge.checks if looks[check.name]
    )
