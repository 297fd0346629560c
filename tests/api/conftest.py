from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from api_site import Site, a_site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with a_site() as one:
        yield one
