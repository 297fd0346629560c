"""`graylift bench`: latency and throughput of one engine or endpoint, or of two in turn.

A model or an engine is served by our own model server, in a process of its own that ends with the command; an endpoint
is asked where it is. Two targets are loaded in short blocks that take turns, as in the performance check, because one
machine is not the same from minute to minute. What is shown of the numbers is `bench_view`'s business.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from graylift.bench.load import LoadPlan, PreparedRequest, load
from graylift.bench.saturation import saturate
from graylift.checks.build import Built
from graylift.checks.questions import ANSWER_WITHIN_S, NoQuestion, Question, answer_to, questions
from graylift.checks.ratios import FEWEST_PAIRS
from graylift.checks.servers import RunningServer, serving
from graylift.checks.workplace import Workplace
from graylift.cli.bench_view import Block, Measured, block_from_load, block_from_saturated, document, print_measured
from graylift.cli.building import built, engine_spec
from graylift.cli.inspecting import found
from graylift.cli.installation import Installation, installation_from
from graylift.cli.interrupts import INTERRUPTED, Interrupted, until_stopped
from graylift.cli.live import console
from graylift.cli.steps import steps
from graylift.domain.engine import Runtime
from graylift.domain.revision import Revision, RunningEndpoint, ServedEngine
from graylift.domain.spec import EndpointModel, OnnxModel, RevisionSpec
from graylift.engine.artefacts import ArtefactStore
from graylift.errors import CommandRefused, DeployError, ProtocolError
from graylift.spec.units import rate_from_text, seconds_from_text

_SERVICE = "bench"
_READY_WITHIN_S = 120.0
_LONGEST_S = 3600.0
_BLOCK_S = 0.5
_TIMEOUT_S = 30.0

Show = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """rate_per_s: an open loop; None: a closed one with `concurrency` requests under way. duration_s: each target."""

    rate_per_s: float | None
    concurrency: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class _Target:
    """What is measured, as typed, and the artefact store its engine lies in."""

    name: str
    side: Built
    artefacts: Path


def bench(
    targets: Sequence[str],
    rate: str | None,
    concurrency: int | None,
    duration: str,
    name: str | None,
    samples: Path | None,
    runtime: Runtime,
    threads: int,
    state: Path | None,
    *,
    as_json: bool,
) -> int:
    """0 if the numbers can be believed, 1 if requests failed or the generator was late, 130 if interrupted."""
    plan = _plan(rate, concurrency, duration)
    real = None if samples is None else str(samples.absolute())
    work = _bench(installation_from(state), targets, plan, name, real, runtime, threads, quiet=as_json)
    try:
        measured = asyncio.run(until_stopped(work))
    except Interrupted:
        sys.stderr.write("interrupted; the servers it had started are ended\n")
        return INTERRUPTED
    if as_json:
        sys.stdout.write(json.dumps(document(measured), indent=2, ensure_ascii=False) + "\n")
    else:
        print_measured(console, measured)
    return 1 if any(one.problem for one in measured) else 0


def _plan(rate: str | None, concurrency: int | None, duration: str) -> Plan:
    if rate is not None and concurrency is not None:
        raise CommandRefused(
            "--rate asks at times fixed ahead, --concurrency asks again when an answer is there: name one of them"
        )
    try:
        per_s = None if rate is None else rate_from_text(rate)
    except ValueError as exc:
        raise CommandRefused(f"--rate {rate}: {exc}") from exc
    try:
        seconds = seconds_from_text(duration)
    except ValueError as exc:
        raise CommandRefused(f"--duration {duration}: {exc}") from exc
    if not 1 <= seconds <= _LONGEST_S:
        raise CommandRefused(f"--duration is from 1s to 1h, not {duration}")
    if per_s is not None and not 0.1 <= per_s <= 100_000:
        raise CommandRefused(f"--rate is from 0.1/s to 100000/s, not {rate}")
    return Plan(20.0 if rate is None and concurrency is None else per_s, concurrency or 1, seconds)


async def _bench(
    installation: Installation,
    targets: Sequence[str],
    plan: Plan,
    name: str | None,
    samples: str | None,
    runtime: Runtime,
    threads: int,
    *,
    quiet: bool,
) -> Sequence[Measured]:
    found_targets = [
        await _target(installation, text, name, runtime, threads, number, quiet=quiet)
        for number, text in enumerate(targets, start=1)
    ]
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="graylift-bench-")))
        servers = [await stack.enter_async_context(_started(target, scratch)) for target in found_targets]
        asked = await _questions(servers, found_targets, samples)
        show = stack.enter_context(steps(console, quiet=quiet))
        blocks = await _measure(servers, [question.request for question in asked], plan, show)
    return [
        Measured(target.name, plan.rate_per_s, plan.concurrency, tuple(own))
        for target, own in zip(found_targets, blocks, strict=True)
    ]


async def _target(
    installation: Installation,
    text: str,
    name: str | None,
    runtime: Runtime,
    threads: int,
    number: int,
    *,
    quiet: bool,
) -> _Target:
    if "://" in text:
        if name is None:
            raise CommandRefused(f"{text} may serve many models: say which with --name")
        url = _url(text)
        spec = RevisionSpec(f"target-{number}", EndpointModel(url), _READY_WITHIN_S)
        revision = Revision(name, spec.name, f"{number:064}", RunningEndpoint(url), _READY_WITHIN_S)
        return _Target(text, Built(spec, revision, None), installation.artefacts)
    if text.endswith((".onnx", ".pt2")) and not (Path(text).parent / "manifest.json").exists():
        own = Runtime.PYTORCH if text.endswith(".pt2") else runtime
        manifest, _ = await built(installation, engine_spec(Path(text), own, threads=threads), quiet=quiet)
        root, digest = installation.artefacts, manifest.digest
    else:
        root, digest = found(text, installation.artefacts)
        manifest = ArtefactStore(root).manifest(digest)
    spec = RevisionSpec(f"target-{number}", OnnxModel(text), _READY_WITHIN_S)
    revision = Revision(name or _SERVICE, spec.name, digest, ServedEngine(digest), _READY_WITHIN_S)
    return _Target(text, Built(spec, revision, manifest), root)


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise CommandRefused(f"{text} is no endpoint: write http://HOST:PORT, without a path")
    return text.rstrip("/")


@asynccontextmanager
async def _started(target: _Target, scratch: Path) -> AsyncGenerator[RunningServer]:
    try:
        async with serving(
            target.side, target.side.spec.name, Workplace(target.artefacts.resolve(), scratch)
        ) as server:
            yield server
    except DeployError as exc:
        raise DeployError(f"{target.name}: {exc}") from exc


async def _questions(
    servers: Sequence[RunningServer], targets: Sequence[_Target], samples: str | None
) -> tuple[Question, ...]:
    """Requests that every target answers. CommandRefused if there are none."""
    try:
        asked = await questions(servers[0], samples)
    except NoQuestion as exc:
        why = str(exc).partition("; name real ones")[0]
        cure = "; give real ones with --samples FILE.npz" if samples is None else ""
        raise CommandRefused(f"{targets[0].name}: {why}{cure}") from exc
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)) as session:
        for server, target in zip(servers[1:], targets[1:], strict=True):
            try:
                await answer_to(session, server, asked[0])
            except (ProtocolError, aiohttp.ClientError, TimeoutError) as exc:
                raise CommandRefused(
                    f"{target.name} does not answer what {targets[0].name} answers, so they cannot be compared: "
                    f"{exc or type(exc).__name__}"
                ) from exc
    return asked


async def _measure(
    servers: Sequence[RunningServer], requests: Sequence[PreparedRequest], plan: Plan, show: Show
) -> list[list[Block]]:
    """The blocks of each server, in pairs that lie next to each other in time."""
    chance = random.Random(0)
    rounds = 1 if len(servers) == 1 else max(FEWEST_PAIRS, round(plan.duration_s / _BLOCK_S))
    began, whole_s = time.monotonic(), plan.duration_s * len(servers)
    blocks: list[list[Block]] = [[] for _ in servers]
    ticking = asyncio.create_task(_tick(show, began, whole_s))
    try:
        for _ in range(rounds):
            seed = chance.getrandbits(32)
            for place in chance.sample(range(len(servers)), len(servers)):
                asked = itertools.cycle(requests)
                blocks[place].append(await _block(servers[place], asked, plan, plan.duration_s / rounds, seed))
    finally:
        ticking.cancel()
        await asyncio.wait({ticking})
    return blocks


async def _block(
    server: RunningServer, requests: Iterator[PreparedRequest], plan: Plan, duration_s: float, seed: int
) -> Block:
    if plan.rate_per_s is not None:
        of_block = LoadPlan(server.url, plan.rate_per_s, duration_s, seed=seed, timeout_s=_TIMEOUT_S)
        return block_from_load(await load(of_block, requests))
    return block_from_saturated(
        await saturate(server.url, requests, in_flight=plan.concurrency, duration_s=duration_s, timeout_s=_TIMEOUT_S)
    )


async def _tick(show: Show, began: float, whole_s: float) -> None:
    """A bar that moves with the time that was planned."""
    while True:
        show("measuring", min(1.0, (time.monotonic() - began) / whole_s))
        await asyncio.sleep(0.2)
