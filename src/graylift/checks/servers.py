"""The model server of one side, started for the checks as the deployer starts it, and ended for certain.

A server of ours is a process of its own, on a free loopback port, its log in the scratch folder; it ends with the
check, also when that is cancelled, and by itself should we be killed (its stdin closes). An endpoint is there already:
nothing is started, measured or ended. Called by `served`; what is asked of the server is the business of each check.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

import aiohttp
from pydantic import TypeAdapter, ValidationError

from graylift.checks.build import Built
from graylift.checks.memory import process_memory
from graylift.checks.workplace import Workplace
from graylift.domain.engine import Interface, Profile, Runtime
from graylift.domain.revision import RunningEndpoint, ServedEngine, ServedLanguageModel
from graylift.domain.spec import ServingProtocol, TensorName
from graylift.errors import DeployError

SERVE = (sys.executable, "-P", "-m", "graylift.serve")
"""-P: a file of the user's working directory, say onnx.py, is not taken for a module."""

_INTERFACE = TypeAdapter(Interface)
_NO_TENSORS = Interface((), ())
_ASK = aiohttp.ClientTimeout(total=2.0)
_POLL_S = 0.01
_NOTICED_S = 1.0
_SHOWN_LINES = 5


@dataclass(frozen=True, slots=True)
class Start:
    """How a server of ours came up, in seconds from the start of its process.

    said: its own lines about it: loaded, warmed, ready, each with its time
    """

    live_s: float
    ready_s: float
    said: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """The process of a server of ours."""

    child: asyncio.subprocess.Process
    log: Path
    start: Start

    @property
    def pid(self) -> int:
        return self.child.pid

    async def end(self, within_s: float = _NOTICED_S) -> str | None:
        """How it ended by itself, with its last lines; None if it still runs. A connection tells of an end sooner than
        the system tells the parent, so this waits a little."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.child.wait()
        return None if self.child.returncode is None else _end(self.child.returncode, self.log)


@dataclass(frozen=True, slots=True)
class RunningServer:
    """One side, ready.

    name:      of the revision
    interface: as it says itself, with the names that clients use; empty for a language model
    profiles:  what its engine was built for, under those names; empty: every shape, or not known
    runtime, process: None for an endpoint
    """

    name: str
    service: str
    url: str
    interface: Interface
    profiles: tuple[Profile, ...]
    runtime: Runtime | None
    process: ServerProcess | None

    @property
    def infer_path(self) -> str:
        return f"/v2/models/{self.service}/infer"

    @property
    def resident_bytes(self) -> int | None:
        """What its process holds now; None for an endpoint, or when it is gone."""
        memory = None if self.process is None else process_memory(self.process.pid)
        return None if memory is None else memory.resident_bytes


@asynccontextmanager
async def serving(
    side: Built, role: str, workplace: Workplace, command: Sequence[str] = SERVE
) -> AsyncGenerator[RunningServer]:
    """The side's server, ready. DeployError, with its last log lines, if it does not get ready in its time.

    role: stable or candidate, for the name of the log
    """
    revision = side.revision
    match revision.backend:
        case RunningEndpoint(url, protocol):
            interface = _NO_TENSORS
            if protocol is ServingProtocol.OPEN_INFERENCE:
                interface = await _described(url.rstrip("/"), revision.service)
            yield RunningServer(revision.name, revision.service, url.rstrip("/"), interface, (), None, None)
        case ServedEngine() | ServedLanguageModel() as engine:
            assert side.manifest is not None, "an engine that was built has a manifest"
            log = _new_log(workplace.scratch, role)
            options = (
                *("--artefacts", str(workplace.artefacts), "--artefact", engine.artefact),
                *("--service", revision.service, "--revision", revision.id, "--port", "0", "--end-with-stdin"),
                *_own_options(engine),
            )
            began = time.monotonic()
            with log.open("wb") as stream:
                try:
                    child = await asyncio.create_subprocess_exec(
                        *command,
                        *options,
                        stdin=asyncio.subprocess.PIPE,  # never written to: its end tells the server that we are gone
                        stdout=stream,
                        stderr=stream,
                        start_new_session=True,  # Ctrl-C is for us; we end the server
                    )
                except OSError as error:
                    raise DeployError(f"the server cannot be started with {command[0]}: {error.strerror}") from error
            # Not child.kill: it looks whether the child has ended, and so takes its status from the one who waits.
            handle = os.pidfd_open(child.pid)
            try:
                try:
                    async with asyncio.timeout(revision.ready_within_s):
                        url, live_s = await _live(child, log, began)
                        await _ready(child, log, url)
                        ready_s = time.monotonic() - began
                        interface, profiles = _NO_TENSORS, ()
                        if isinstance(engine, ServedEngine):
                            interface = await _described(url, revision.service)
                            profiles = _served_profiles(side.manifest.profiles, engine.inputs)
                except TimeoutError as error:
                    raise DeployError(
                        f"its server was not ready within {revision.ready_within_s:g} s (readyWithin); {_said(log)}"
                    ) from error
                start = Start(live_s, ready_s, _own_words(log))
                yield RunningServer(
                    name=revision.name,
                    service=revision.service,
                    url=url,
                    interface=interface,
                    profiles=profiles,
                    runtime=side.manifest.runtime,
                    process=ServerProcess(child, log, start),
                )
            finally:
                # Killed, not drained: nobody but us asked it anything.
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                os.close(handle)
                await child.wait()
        case _:
            assert_never(revision.backend)


async def _live(child: asyncio.subprocess.Process, log: Path, began: float) -> tuple[str, float]:
    """Its URL, and how long it took to answer at all."""
    while (listens := re.search(r"start: \S+ on (\S+:\d+)", _text(log))) is None:
        _raise_if_ended(child, log)
        await asyncio.sleep(_POLL_S)
    url = f"http://{listens[1]}"
    await _until_200(child, log, f"{url}/v2/health/live")
    return url, time.monotonic() - began


async def _ready(child: asyncio.subprocess.Process, log: Path, url: str) -> None:
    await _until_200(child, log, f"{url}/v2/health/ready")


async def _until_200(child: asyncio.subprocess.Process, log: Path, asked: str) -> None:
    async with aiohttp.ClientSession(timeout=_ASK) as session:
        while True:
            _raise_if_ended(child, log)
            try:
                async with session.get(asked, allow_redirects=False) as answer:
                    if answer.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass  # not yet; the time it has is the caller's business
            await asyncio.sleep(_POLL_S)


def _raise_if_ended(child: asyncio.subprocess.Process, log: Path) -> None:
    if child.returncode is not None:
        raise DeployError(f"its server {_end(child.returncode, log)}")


async def _described(url: str, service: str) -> Interface:
    asked = f"{url}/v2/models/{service}"
    try:
        async with (
            aiohttp.ClientSession(timeout=_ASK) as session,
            session.get(asked, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise DeployError(f"its server does not describe its model: GET {asked} answered {answer.status}")
            return _INTERFACE.validate_json(await answer.read())
    except (aiohttp.ClientError, TimeoutError) as error:
        raise DeployError(f"its server does not answer GET {asked}: {error or type(error).__name__}") from error
    except ValidationError as error:
        raise DeployError(f"its server describes its model in no way of the protocol: GET {asked}") from error


def _own_options(engine: ServedEngine | ServedLanguageModel) -> Sequence[str]:
    match engine:
        case ServedEngine():
            return [*_renamings("--input", engine.inputs), *_renamings("--output", engine.outputs)]
        case ServedLanguageModel():
            context, streams = str(engine.context_length), str(engine.max_streams)
            return ["--context-length", context, "--max-streams", streams, "--threads", str(engine.threads)]


def _renamings(flag: str, names: Sequence[TensorName]) -> Sequence[str]:
    return [word for name in names for word in (flag, f"{name.served}={name.own}")]


def _served_profiles(profiles: Sequence[Profile], names: Sequence[TensorName]) -> tuple[Profile, ...]:
    served = {name.own: name.served for name in names}
    return tuple(
        Profile(tuple(replace(shape, input=served.get(shape.input, shape.input)) for shape in profile.shapes))
        for profile in profiles
    )


def _new_log(scratch: Path, role: str) -> Path:
    """A name that no earlier start of these checks has."""
    return scratch / f"{role}-{len(list(scratch.glob(f'{role}-*.log'))) + 1}.log"


def _own_words(log: Path) -> tuple[str, ...]:
    """`loaded`, `warmed` and `ready`, without time stamp and level."""
    lines = _text(log).splitlines()
    return tuple(
        found[1] for line in lines if (found := re.search(r" (?:INFO|WARNING) ((?:loaded|warmed|ready): .*)", line))
    )


def _text(log: Path) -> str:
    return log.read_text(errors="replace")


def _end(status: int, log: Path) -> str:
    if status >= 0:
        return f"exited with status {status}; {_said(log)}"
    name = signal.Signals(-status).name if -status in list(signal.Signals) else f"signal {-status}"
    return f"was killed by {name}; {_said(log)}"


def _said(log: Path) -> str:
    lines = _text(log).strip().splitlines()[-_SHOWN_LINES:]
    return "the last it said: " + " | ".join(lines) if lines else "it said nothing"
