"""The judge on traffic that nobody simulated: three real model servers, recorded once, replayed as often as one likes.

`record FILE.csv.gz`: Magika's file type model on ONNX Runtime behind our model server, three processes at once: stable,
the same file again, and a build that does four times the work (the demo's slow candidate). Poisson arrivals, each
request drawn for one of them; latency counts from its due time. Needs the demo's packages, once.
`replay FILE.csv.gz`: each of the two against stable, through the judge, second by second; then the requests of the two
equal servers dealt out anew, many times, against a judge without margins.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import numpy as np
from judged_releases import shown
from judged_traffic import errors, histogram, latency, points

from graylift.analysis import judge
from graylift.bench.schedule import Arrivals, due_times
from graylift.demo.models import default_cache
from graylift.demo.scenario import SCENARIOS
from graylift.domain.engine import EngineSpec, Runtime
from graylift.domain.evidence import Window
from graylift.domain.judgement import Judgement
from graylift.domain.spec import JudgeSpec, Stage
from graylift.domain.weights import Role, Weights
from graylift.engine.artefacts import ArtefactStore

MODELS = {"stable": "v3.3.onnx", "same": "v3.3.onnx", "slow": "v3.3-batch4.onnx"}
SHARES = (0.6, 0.2, 0.2)
RATE_PER_S = 10.0
EARLIER_S = 30.0
"""Seconds of the recording that only teach what stable is like."""
NEXT_TO_NONE = 1 + 1e-9
FIELDS = ("time", "arm", "status", "latency_ms")
Row = tuple[float, str, int, float]


def checks(ratio: float) -> JudgeSpec:
    """Errors by half a point, and p50, p90 and p99 by a ratio."""
    return JudgeSpec((errors(points(0.005), points(0.01)), *(latency(q, ratio, 2 * ratio) for q in (0.5, 0.9, 0.99))))


async def record(duration_s: float) -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        scenario = SCENARIOS[0]
        scenario.prepare(default_cache(), folder, print)
        requests = scenario.requests(folder, 1)
        servers = {name: start(folder, name, folder / "models" / model) for name, model in MODELS.items()}
        try:
            urls = {name: url_of(folder / f"{name}.log") for name in servers}
            rows: list[Row] = []
            chance = np.random.default_rng(2)
            async with (
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
                asyncio.TaskGroup() as group,
            ):
                for url in urls.values():
                    await until_ready(session, url)
                began, began_at = time.perf_counter(), time.time()
                for due in due_times(RATE_PER_S, duration_s, Arrivals.POISSON, 3).tolist():
                    await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
                    name = str(chance.choice(list(MODELS), p=SHARES))
                    request = next(requests)

                    async def send(due: float = due, name: str = name, request=request) -> None:
                        url = urls[name] + request.path
                        async with session.post(url, data=request.body, headers=request.headers) as answer:
                            await answer.read()
                        ended = time.perf_counter()
                        rows.append((began_at + ended - began, name, answer.status, (ended - began - due) * 1e3))

                    group.create_task(send())
            return sorted(rows)
        finally:
            for server in servers.values():
                server.terminate()
                server.wait()


def start(folder: Path, name: str, model: Path) -> subprocess.Popen[bytes]:
    digest = ArtefactStore(folder / "artefacts").build(EngineSpec(str(model), Runtime.ONNXRUNTIME)).digest
    command = [sys.executable, "-m", "graylift.serve", "--artefacts", str(folder / "artefacts"), "--artefact", digest]
    command += ["--service", SCENARIOS[0].service, "--port", "0"]
    command += ["--revision", f"{SCENARIOS[0].service}.{name}.{digest[:12]}"]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def url_of(log: Path) -> str:
    """Once it listens; there is nothing else to do until then."""
    while (said := re.search(r"start: \S+ on (\S+:\d+)", log.read_text())) is None:
        time.sleep(0.05)
    return f"http://{said[1]}"


async def until_ready(session: aiohttp.ClientSession, url: str) -> None:
    while True:
        async with session.get(f"{url}/v2/health/ready") as answer:
            if answer.status == 200:
                return
        await asyncio.sleep(0.05)


def replayed(rows: list[Row], candidate: str, spec: JudgeSpec) -> tuple[Judgement, float]:
    """The judgement and the second of the stage in which it came: at the first FAIL, or at the end."""
    seconds: defaultdict[tuple[int, str], list[Row]] = defaultdict(list)
    for row in rows:
        seconds[int(row[0] - rows[0][0]), row[1]].append(row)

    def windows(second: int, split: str, arms: dict[Role, str]) -> Iterator[Window]:
        for role, name in arms.items():
            own = seconds[second, name]
            answered = np.array([ms for _, _, status, ms in own if status < 400]) / 1e3
            failed = len(own) - len(answered)
            yield Window("s", split, role, role.value, None, len(own), failed, latency=histogram(answered))

    state = judge.start(spec)
    weights = Weights(round(1e4 * SHARES[1] / (SHARES[0] + SHARES[1])))
    last = int(rows[-1][0] - rows[0][0])
    for second in range(last + 1):
        arms = {Role.STABLE: "stable"}
        if second >= EARLIER_S:
            if second == EARLIER_S:
                state = judge.enter(spec, state, Stage(weights, observe_s=60.0), "one", sticky=False)
            arms[Role.CANDIDATE] = candidate
        state = judge.observe(spec, state, list(windows(second, "one" if len(arms) == 2 else "before", arms)))
        if state.found:
            return judge.judge(spec, state), second - EARLIER_S
    return judge.judge(spec, state), last - EARLIER_S


def relabelled(rows: list[Row], seed: int) -> list[Row]:
    """The same requests of the same model, with the two servers that ran it dealt out anew: equal beyond doubt."""
    chance = np.random.default_rng(seed)
    share = SHARES[1] / (SHARES[0] + SHARES[1])
    return [
        (t, "same" if chance.random() < share else "stable", status, ms) for t, arm, status, ms in rows if arm != "slow"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=("record", "replay"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=float, default=300.0, help="of a recording")
    parser.add_argument("--times", type=int, default=200, help="that equal revisions are dealt out anew")
    given = parser.parse_args()
    if given.act == "record":
        recorded = asyncio.run(record(given.seconds))
        with gzip.open(given.file, "wt", newline="") as file:
            write = csv.writer(file)
            write.writerow(FIELDS)
            write.writerows((f"{t:.3f}", arm, status, f"{ms:.2f}") for t, arm, status, ms in recorded)
        return
    with gzip.open(given.file, "rt", newline="") as file:
        rows = [(float(t), arm, int(status), float(ms)) for t, arm, status, ms in list(csv.reader(file))[1:]]
    for name in MODELS:
        own = np.array([ms for _, arm, _, ms in rows if arm == name])
        quantiles = ", ".join(f"p{q} {np.percentile(own, q):.1f} ms" for q in (50, 90, 99))
        print(f"{name}: {len(own):,} requests, {quantiles}")
    for name in ("same", "slow"):
        judgement, second = replayed(rows, name, checks(1.2))
        found = "FAIL" if judgement.failed else "PASS" if judgement.passed else "INCONCLUSIVE"
        print(f"{name}: {found} after {judgement.candidate_n:,} requests, {second:.0f} s")
        for verdict in judgement.verdicts:
            print(f"  {verdict.ruling.name}: {verdict.sentence}")
    equal = sum(replayed(relabelled(rows, seed), "same", checks(NEXT_TO_NONE))[0].failed for seed in range(given.times))
    print(f"stable and same dealt out anew, next to no margin, FAIL: {shown(equal, given.times)}")


if __name__ == "__main__":
    main()
