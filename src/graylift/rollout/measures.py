"""Which metrics that are counted elsewhere are to be read for a release now, and for which split.

Called by the controller."""

from __future__ import annotations

from graylift.domain.release import Phase, Release, Service
from graylift.domain.sources import WantedArm, WantedMetric
from graylift.domain.weights import Role
from graylift.rollout.arms import candidate_of, stable_of
from graylift.rollout.routes import split_of


def wanted_metrics(service: Service, release: Release | None) -> tuple[WantedMetric, ...]:
    """None while the candidate has no traffic, or all of it: then there is nothing to compare."""
    if release is None or release.phase not in (Phase.PROGRESSING, Phase.PAUSED):
        return ()
    arms = tuple(
        WantedArm(role, revision.id, revision.name)
        for role, revision in ((Role.CANDIDATE, candidate_of(release)), (Role.STABLE, stable_of(release)))
    )
    return tuple(
        WantedMetric(service.name, check.name, check.origin, split_of(service, release), release.entered_s, arms)
        for check in release.spec.judge.checks
        if check.origin is not None
    )
