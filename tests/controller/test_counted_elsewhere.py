"""Whole releases whose verdict also needs what a Prometheus or an OpenTelemetry exporter counts."""

from __future__ import annotations

from release_scene import STAGES, Scene

from graylift.controller import Controller
from graylift.domain.release import Phase
from graylift.domain.sources import PrometheusCounters
from graylift.domain.spec import Check, Margin, MarginKind, Metric
from graylift.domain.tally import Tally
from graylift.domain.weights import Role
from graylift.testing.fakes import FakeMetrics
from graylift.testing.samples import ERRORS, release_spec

ORIGIN = PrometheusCounters("http://p:9090", "bad_total", "all_total", (("v", "{revision}"),), 1.0)
QUEUE = Check(
    Metric.SHARE,
    None,
    Margin(MarginKind.POINTS, 0.02),
    Margin(MarginKind.POINTS, 0.05),
    share="slow-queue",
    origin=ORIGIN,
)
SPEC = release_spec(stages=STAGES, checks=(ERRORS, QUEUE))
NAME = "slow-queue of file-type"


class CountedScene(Scene):
    """A scene in which a metric is counted elsewhere too, each second while it is wanted."""

    def __init__(self) -> None:
        self.metrics = FakeMetrics()
        self.candidate = self.stable = Tally(2, 200)
        self.gap: str | None = None
        super().__init__()

    def new_controller(self) -> Controller:
        self._holders += 1
        return Controller(
            store=self.store,
            router=self.router,
            evidence=self.evidence,
            deployer=self.deployer,
            checklist=self.checklist,
            clock=self.clock,
            holder=f"controller {self._holders}",
            metrics=(self.metrics,),
        )

    def traffic(self) -> None:
        for wanted in self.metrics.wanted:
            arms = {} if self.gap else {"candidate": self.candidate, "stable": self.stable}
            self.metrics.count(wanted, self.clock.now(), self.gap, **arms)
        super().traffic()


async def test_it_is_wanted_for_both_arms_of_each_stage_and_for_nothing_else() -> None:
    scene = CountedScene()
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    (wanted,) = scene.metrics.wanted
    assert (wanted.metric, wanted.split, wanted.origin) == ("slow-queue", "file-type-1/0", ORIGIN)
    assert [(arm.role, arm.revision) for arm in wanted.arms] == [(Role.CANDIDATE, "v2"), (Role.STABLE, "v1")]
    assert wanted.since_s == scene.release.entered_s
    await scene.until(Phase.PROMOTED)
    assert scene.metrics.wanted == ()
    assert scene.release.done[0].observed_s < 60, "what is counted elsewhere is not observed time"


async def test_a_candidate_that_is_worse_there_alone_is_rolled_back_for_it() -> None:
    scene = CountedScene()
    scene.candidate = Tally(30, 200)
    scene.starts(SPEC)
    release = await scene.until(Phase.ROLLED_BACK)
    assert "slow-queue 15.0 % against stable's 1.0 %" in release.reason


async def test_a_source_in_trouble_holds_is_told_once_and_goes_on_when_it_is_well() -> None:
    scene = CountedScene()
    scene.metrics.broken[NAME] = "http://p:9090 did not answer within 10 s"
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    await scene.seconds(30)
    assert (scene.release.phase, scene.release.stage) == (Phase.PROGRESSING, 0)
    assert "slow-queue: no candidate events yet" in scene.release.reason
    told = [event.text for event in scene.events("TROUBLE")]
    assert told == [f"metric {NAME}: http://p:9090 did not answer within 10 s"]
    del scene.metrics.broken[NAME]
    await scene.until(Phase.PROMOTED)
    assert [event.text for event in scene.events("MENDED")] == [f"metric {NAME}: well again"]


async def test_intervals_with_a_gap_hold_and_never_blame() -> None:
    scene = CountedScene()
    scene.gap = "slow-queue of candidate: its only series began anew in it"
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    await scene.seconds(30)
    assert (scene.release.phase, scene.release.stage) == (Phase.PROGRESSING, 0)


async def test_each_interval_counts_once_though_controllers_die() -> None:
    scene = CountedScene()
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    for _ in range(3):
        await scene.is_killed()
        await scene.looks()
    await scene.until(Phase.PROMOTED)
    stored = [r for change in scene.store.commits for r in change.reports if r.gateway == NAME]
    assert [report.sequence for report in stored] == list(range(1, len(stored) + 1))
