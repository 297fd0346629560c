"""Shadow traffic of real models on real input: the same model agrees with itself, another version with most of it."""

from __future__ import annotations

import pytest
from site_under_test import Site, failures, release_text

from graylift.demo.models import default_cache
from graylift.demo.scenario import SCENARIOS
from graylift.domain.release import Phase, Release
from graylift.domain.shadow import ShadowWindow

pytestmark = pytest.mark.real

FILE_TYPES = SCENARIOS[0]
STAGES = """
    - {shadow: 100%, observe: 1h}
    - {weight: 50, observe: 1s}
    - {weight: 100, watch: 1s}
"""


async def shadow_of(site: Site, stable: str, candidate: str, pairs: int = 120) -> ShadowWindow:
    """What a shadow of all requests shows of two versions of the file type model."""
    FILE_TYPES.prepare(default_cache(), site.folder, lambda _: None)
    stable, candidate = (
        f"revision: {role}, model: {{onnx: models/{version}.onnx}}"
        for role, version in (("old", stable), ("new", candidate))
    )
    run = site.start("run", str(site.write(release_text(stable, candidate, service="file-type", stages=STAGES))))

    def seen(release: Release) -> ShadowWindow | None:
        return None if release.judgement is None else release.judgement.shadow

    async with site.traffic(FILE_TYPES.requests(site.folder, 1), rate=25, service="file-type") as reports:
        release = await site.until(
            lambda release: release.phase.is_final or ((window := seen(release)) is not None and window.pairs >= pairs),
            service="file-type",
        )
    assert release.phase is Phase.PROGRESSING, run.output()
    assert failures(reports[0]) == 0
    window = seen(release)
    assert window is not None
    return window


async def test_the_same_model_agrees_with_itself_on_every_request(site: Site) -> None:
    window = await shadow_of(site, "v3.3", "v3.3")
    assert window.compared == window.pairs
    assert (window.agreement, window.drift) == (1.0, 0.0)


async def test_another_version_of_a_model_agrees_on_most_and_drifts_on_some(site: Site) -> None:
    window = await shadow_of(site, "v3.2", "v3.3")
    assert window.compared == window.pairs
    assert window.agreement is not None
    assert 0.6 < window.agreement < 0.95
    assert window.differences == (("choice of target_label", window.compared - window.agreeing),)
