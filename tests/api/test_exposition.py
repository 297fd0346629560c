"""/metrics: each report counted once, and a real Prometheus that gets data for every panel of the dashboard."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import time
import urllib.parse
from pathlib import Path

import pytest
from api_site import Site
from prometheus_client.parser import text_string_to_metric_families
from stored_releases import NOW, a_release, keep

from graylift.adapters.clock import SystemClock
from graylift.adapters.otlp import OtlpSource
from graylift.adapters.sql_store import SqlStore
from graylift.api import ApiServer, create_app
from graylift.api.exposition import Exposition
from graylift.domain.evidence import IntervalReport, Window
from graylift.domain.histogram import Histogram, bin_of
from graylift.domain.weights import Role
from graylift.ports import Change
from graylift.testing import samples
from graylift.testing.fakes import FakeClock

DOCS = Path(__file__).parents[2] / "docs" / "observability"
PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")


def report(sequence: int, start_s: float, *, failed: int = 0, gap: str | None = None) -> IntervalReport:
    windows = tuple(
        Window(
            "file-type",
            "file-type-1/0",
            arm,
            samples.revision(name).id,
            None,
            requests=10,
            failed=failed,
            latency=Histogram(((bin_of(0.015), 10 - failed),)),
        )
        for arm, name in ((Role.STABLE, "v1"), (Role.CANDIDATE, "v2"))
    )
    return IntervalReport("g1", sequence, start_s, 1.0, 1, windows, gap)


def add(store: SqlStore, *reports: IntervalReport) -> None:
    lease = store.acquire("tests", NOW, 1e12)
    assert lease is not None
    store.commit(lease, Change(reports=reports))


def values(text: bytes) -> dict[tuple[str, ...], float]:
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found[sample.name, *(value for _, value in sorted(sample.labels.items()))] = sample.value
    return found


def test_each_report_is_counted_once_however_often_it_is_asked(store: SqlStore) -> None:
    keep(store, a_release())
    clock = FakeClock(NOW)
    exposition = Exposition(store, clock)
    add(store, report(1, NOW - 5), report(2, NOW), report(3, NOW + 1, failed=2))
    first = values(exposition.text())
    add(store, report(4, NOW + 2, gap="the log was lost"))
    again, last = values(exposition.text()), values(exposition.text())
    assert first["graylift_requests_total", "candidate", "v2", "file-type"] == 20  # what was before the start is not
    assert again["graylift_requests_total", "candidate", "v2", "file-type"] == 30
    assert last == again
    assert last["graylift_requests_failed_total", "stable", "v1", "file-type"] == 2
    assert last["graylift_request_duration_seconds_bucket", "candidate", "0.01", "v2", "file-type"] == 0
    assert last["graylift_request_duration_seconds_bucket", "candidate", "0.02", "v2", "file-type"] == 28
    assert last["graylift_evidence_gaps_total", "g1"] == 1


def test_it_says_where_a_release_stands(store: SqlStore) -> None:
    keep(store, a_release())
    found = values(Exposition(store, FakeClock(NOW)).text())
    assert found["graylift_release_phase", "PROGRESSING", "file-type-1", "file-type"] == 1
    assert found["graylift_release_phase", "PAUSED", "file-type-1", "file-type"] == 0
    assert found["graylift_candidate_weight_ratio", "file-type-1", "file-type"] == 0.05
    assert found["graylift_check_ruling", "errors", "file-type-1", "PASS", "file-type"] == 1
    assert found[("graylift_controller_acting",)] == 1


async def test_every_name_in_the_documents_is_a_metric(site: Site) -> None:
    async with site.http.get(f"{site.url}/metrics") as answer:
        told = await answer.text()
    page = (DOCS.parent / "observability.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = {cell.strip("`, ") for row in rows for cell in row.split(",")}
    assert named
    assert [name for name in sorted(named) if f"# TYPE {name} " not in told] == []


@pytest.mark.real
@pytest.mark.skipif(PROMTOOL is None, reason="prometheus is not installed (apt-get install prometheus)")
def test_prometheus_accepts_the_alert_rules() -> None:
    assert PROMTOOL is not None
    checked = subprocess.run(
        [PROMTOOL, "check", "rules", str(DOCS / "alerts.yaml")], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.real
@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed (apt-get install prometheus)")
async def test_every_panel_of_the_dashboard_shows_data_in_a_real_prometheus(
    store: SqlStore, site: Site, tmp_path: Path
) -> None:
    keep(store, a_release())
    server = ApiServer(create_app(store, site.scores, OtlpSource(), SystemClock(), "127.0.0.1"), "127.0.0.1", 0)
    await server.start()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    every, target = "scrape_interval: 200ms, scrape_timeout: 200ms", f"{{targets: ['{server.address}']}}"
    (tmp_path / "prometheus.yml").write_text(
        f"rule_files: ['{DOCS / 'alerts.yaml'}']\n"
        f"scrape_configs: [{{job_name: graylift, {every}, static_configs: [{target}]}}]\n"
        f"global: {{evaluation_interval: 1s}}\n"
    )
    assert PROMETHEUS is not None
    process = subprocess.Popen(
        [
            PROMETHEUS,
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    panels = json.loads((DOCS / "grafana.json").read_text())["panels"]
    expressions = [target["expr"].replace("$service", ".*") for panel in panels for target in panel["targets"]]
    missing = set(expressions)
    deadline = time.monotonic() + 60
    sequence = 1
    try:
        while missing and time.monotonic() < deadline:
            add(store, report(sequence, time.time(), failed=1))
            sequence += 1
            await asyncio.sleep(0.3)
            for expression in tuple(missing):
                query = urllib.parse.urlencode({"query": expression})
                try:
                    async with site.http.get(f"http://127.0.0.1:{port}/api/v1/query?{query}") as answer:
                        result = (await answer.json()).get("data", {}).get("result", [])
                except OSError:
                    break  # it is starting
                if any(series["value"][1] != "NaN" for series in result):
                    missing.discard(expression)
        assert missing == set()
    finally:
        process.terminate()
        process.wait(20)
        await server.close()
