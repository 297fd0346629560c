"""Where one Graylift lives on this machine: its state directory and the settings that must outlast a command.

A state directory holds everything: the store, the artefacts, Envoy's files and log, the servers' logs. Two of them
on one machine know nothing of each other.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from graylift.errors import CommandRefused

DEFAULT_STATE = Path(".graylift")
DEFAULT_LISTEN = "127.0.0.1:8080"
DEFAULT_API = "127.0.0.1:0"
MEMORY = "memory"
"""As a store of limits: none, to forget one that is remembered."""


@dataclass(frozen=True, slots=True)
class Installation:
    """state: absolute. envoy: a binary to use instead of the one that came with Graylift.

    api_host, api_port: of the HTTP API; port 0 lets the system choose, and `api_url` tells which it chose
    limits_store: see `GatewayConfig`
    """

    state: Path
    listen_host: str
    listen_port: int
    envoy: Path | None
    api_host: str = "127.0.0.1"
    api_port: int = 0
    limits_store: str | None = None

    @property
    def url(self) -> str:
        """Where clients reach the gateway."""
        host = f"[{self.listen_host}]" if ":" in self.listen_host else self.listen_host
        return f"http://{host}:{self.listen_port}"

    @property
    def store_file(self) -> Path:
        return self.state / "graylift.db"

    @property
    def artefacts(self) -> Path:
        return self.state / "artefacts"

    @property
    def servers(self) -> Path:
        return self.state / "servers"

    @property
    def gateway(self) -> Path:
        return self.state / "gateway"

    @property
    def api_url(self) -> str | None:
        """Where the HTTP API was last served; None if it never was. It is there while a controller runs."""
        try:
            return f"http://{(self.state / 'api.address').read_text().strip()}"
        except FileNotFoundError:
            return None

    def say_api(self, address: str) -> None:
        """The API is served at `address` (host:port) now."""
        _write(self.state / "api.address", address + "\n")

    def remember(self) -> None:
        """Write the settings down, so that a later command without options finds the same gateway."""
        self.state.mkdir(parents=True, exist_ok=True)
        settings = {
            "listen": f"{self.listen_host}:{self.listen_port}",
            "envoy": str(self.envoy) if self.envoy else None,
            "api": f"{self.api_host}:{self.api_port}",
            "limitsStore": self.limits_store,
        }
        _write(self.state / "settings.json", json.dumps(settings, indent=2) + "\n")


def installation_from(
    state: Path | None,
    listen: str | None = None,
    envoy: Path | None = None,
    api: str | None = None,
    limits_store: str | None = None,
) -> Installation:
    """What the options say, else what the state directory remembers, else the defaults. CommandRefused if wrong."""
    root = (state or DEFAULT_STATE).absolute()
    remembered: dict[str, str | None] = {}
    settings = root / "settings.json"
    if settings.exists():
        try:
            remembered = json.loads(settings.read_text())
        except ValueError as exc:
            raise CommandRefused(f"{settings} is damaged ({exc}); delete it and name --listen again") from exc
    host, port = _address("--listen", listen or remembered.get("listen") or DEFAULT_LISTEN, DEFAULT_LISTEN)
    api_host, api_port = _address("--api", api or remembered.get("api") or DEFAULT_API, "127.0.0.1:8081", fewest=0)
    own = remembered.get("envoy")
    binary = envoy or (Path(own) if own else None)
    store = limits_store or remembered.get("limitsStore")
    return Installation(
        state=root,
        listen_host=host,
        listen_port=port,
        envoy=binary.absolute() if binary else None,
        api_host=api_host,
        api_port=api_port,
        limits_store=None if store == MEMORY else store,
    )


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(path.name + ".tmp")
    scratch.touch(mode=0o600)  # the address of a store of limits may hold a password
    scratch.write_text(text)
    os.replace(scratch, path)


def _address(option: str, text: str, example: str, fewest: int = 1) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not fewest <= int(port) < 65536:
        raise CommandRefused(f"{option} takes HOST:PORT, as in {example}; not {text!r}")
    return host.strip("[]"), int(port)
