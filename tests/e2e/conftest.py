from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from site_under_test import Site, free_port


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, free_port())
    try:
        yield site
    finally:
        site.close()
