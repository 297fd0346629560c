"""Settings that outlast a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from graylift.cli.installation import installation_from
from graylift.errors import CommandRefused


def test_options_win_over_what_is_remembered_and_that_over_the_defaults(tmp_path: Path) -> None:
    assert installation_from(tmp_path).url == "http://127.0.0.1:8080"
    installation_from(tmp_path, "127.0.0.1:9000").remember()
    assert installation_from(tmp_path).url == "http://127.0.0.1:9000"
    assert installation_from(tmp_path, "[::1]:9001").url == "http://[::1]:9001"


def test_an_own_envoy_is_remembered_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    installation_from(tmp_path, envoy=Path("bin/envoy")).remember()
    assert installation_from(tmp_path).envoy == tmp_path / "bin" / "envoy"


@pytest.mark.parametrize("listen", ["8080", "localhost", ":8080", "127.0.0.1:0", "127.0.0.1:70000", "127.0.0.1:http"])
def test_a_listener_that_is_no_address_is_refused_with_an_example(tmp_path: Path, listen: str) -> None:
    with pytest.raises(CommandRefused, match=r"HOST:PORT, as in 127\.0\.0\.1:8080"):
        installation_from(tmp_path, listen)


def test_damaged_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(CommandRefused, match=r"settings\.json is damaged"):
        installation_from(tmp_path)


def test_a_store_of_limits_is_remembered_for_its_owner_alone_until_it_is_forgotten(tmp_path: Path) -> None:
    url = "valkey://graylift:secret@127.0.0.1:6379"
    installation_from(tmp_path, limits_store=url).remember()
    assert installation_from(tmp_path).limits_store == url
    assert (tmp_path / "settings.json").stat().st_mode & 0o077 == 0
    installation_from(tmp_path, limits_store="memory").remember()
    assert installation_from(tmp_path).limits_store is None
