"""A real Prometheus that scrapes real exporters: what the tests of sources share."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server

from graylift.domain.sources import PrometheusCounters, PrometheusHistogram, WantedArm, WantedMetric
from graylift.domain.weights import Role

SCRAPE_S = 0.2
EVERY_S = 1.0
PROMETHEUS = shutil.which("prometheus")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Exporter:
    """A server of one revision, as a Prometheus sees it. `restart`: its counters are gone, its port is not."""

    revision: str
    port: int = field(default_factory=free_port)
    _server: WSGIServer | None = None
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self.registry = CollectorRegistry()
        self.queue = Histogram("queue", "", ["revision"], registry=self.registry, buckets=(0.1, 0.5, 1.0))
        self.calls = Counter("calls", "", ["revision"], registry=self.registry)
        self.preempted = Counter("preempted", "", ["revision"], registry=self.registry)
        self._server, self._thread = start_http_server(self.port, "127.0.0.1", self.registry)

    def serve(self, seconds: float, times: int = 1, *, bad: int = 0) -> None:
        """`times` requests that waited so long, `bad` of them preempted."""
        for _ in range(times):
            self.queue.labels(self.revision).observe(seconds)
        self.calls.labels(self.revision).inc(times)
        self.preempted.labels(self.revision).inc(bad)

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def restart(self) -> None:
        self.stop()
        self.start()


@contextmanager
def exporters() -> Iterator[tuple[Exporter, Exporter]]:
    """Of stable (v1) and of the candidate (v2)."""
    both = Exporter("v1"), Exporter("v2")
    try:
        for one in both:
            one.start()
        yield both
    finally:
        for one in both:
            one.stop()


@contextmanager
def prometheus(folder: Path, *targets: Exporter) -> Iterator[str]:
    """The URL of a Prometheus that has scraped every target once."""
    assert PROMETHEUS is not None
    url = f"http://127.0.0.1:{(port := free_port())}"
    scrape = {
        "job_name": "models",
        "scrape_interval": f"{SCRAPE_S * 1000:.0f}ms",
        "scrape_timeout": f"{SCRAPE_S * 1000:.0f}ms",
        "static_configs": [{"targets": [f"127.0.0.1:{target.port}" for target in targets]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps({"scrape_configs": [scrape]}))
    process = subprocess.Popen(
        [
            PROMETHEUS,
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
    )
    try:
        until_scraped(url, len(targets))
        yield url
    finally:
        process.terminate()
        process.wait()


def until_scraped(url: str, targets: int) -> None:
    """Prometheus itself waits five seconds before it scrapes for the first time."""
    for _ in range(300):
        with suppress(OSError), urllib.request.urlopen(f"{url}/api/v1/query?query=sum(up)") as response:
            result = json.load(response)["data"]["result"]
            if result and int(result[0]["value"][1]) == targets:
                return
        time.sleep(0.05)
    raise AssertionError("Prometheus has not scraped its targets in 15 s")


LABELS = (("revision", "{revision}"),)


def wanted(origin: PrometheusHistogram | PrometheusCounters, since_s: float, split: str = "s-1/0") -> WantedMetric:
    arms = (WantedArm(Role.CANDIDATE, "s.v2.0", "v2"), WantedArm(Role.STABLE, "s.v1.0", "v1"))
    return WantedMetric("s", "queue-time", origin, split, since_s, arms)


def a_histogram(url: str) -> PrometheusHistogram:
    return PrometheusHistogram(url, "queue", 0.5, LABELS, EVERY_S)


def counters(url: str) -> PrometheusCounters:
    return PrometheusCounters(url, "preempted_total", "calls_total", LABELS, EVERY_S)
