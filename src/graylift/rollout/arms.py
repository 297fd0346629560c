"""The two revisions of a release, once its checks have bound it to them. Called by the other modules of `rollout`."""

from __future__ import annotations

from graylift.domain.release import Phase, Release
from graylift.domain.revision import Revision
from graylift.domain.weights import NONE, Weights

UNBOUND = (Phase.PENDING, Phase.CHECKING)
"""Before the checks are done nobody knows which engines this release is about."""

ON_TRAFFIC = (Phase.PROGRESSING, Phase.PAUSED, Phase.PROMOTING)
"""The candidate gets the weight of the current stage. In every other phase it gets none."""

GOING_BACK = (Phase.ROLLING_BACK, Phase.ROLLBACK_FAILED)


def weights_of(release: Release) -> Weights:
    """How the traffic is split now, as this release wants it."""
    return release.current_stage.weights if release.phase in ON_TRAFFIC else NONE


def stage_ahead(release: Release) -> int | None:
    """Index of the stage that this release enters next, if all goes well; None where no stage follows."""
    match release.phase:
        case Phase.STARTING:
            return 0
        case Phase.PROGRESSING:
            return release.stage + 1
        case _:
            return None


def stable_of(release: Release) -> Revision:
    """The revision to compare with and to go back to. ValueError before the checks have bound the release."""
    if release.stable is None:
        raise ValueError(f"{release.id} is {release.phase.value} but has no stable revision")
    return release.stable


def candidate_of(release: Release) -> Revision:
    """The revision to be released. ValueError before the checks have bound the release."""
    if release.candidate is None:
        raise ValueError(f"{release.id} is {release.phase.value} but has no candidate revision")
    return release.candidate
