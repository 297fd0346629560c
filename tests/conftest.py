"""What all tests share: nothing of the user's environment leaks in."""

from __future__ import annotations

import hypothesis
import pytest

# Shared cores: how long one example takes says nothing about the code.
hypothesis.settings.register_profile("graylift", deadline=None)
hypothesis.settings.load_profile("graylift")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ("GRAYLIFT_STATE", "GRAYLIFT_LISTEN", "GRAYLIFT_ENVOY", "GRAYLIFT_LIMITS_STORE")
    for name in (*ours, "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
