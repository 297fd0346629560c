"""Model servers as processes of this machine: they outlive the controller, and the next one adopts them.

    <root>/<revision id>/server.json    what was started: process, port, command; written before and after the start
                         server.log     what this start said; server.log.1: the end of what the one before said

All memory is in these files, read anew at each call, so that whoever holds the lease sees what the last holder did.
It starts what it is told and judges nothing. Called by the controller; `graylift down` uses `ending` besides the port.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never
from urllib.parse import urlsplit

import aiohttp

from graylift.adapters.documents import document_from, value_from
from graylift.adapters.server_process import ProcessId, end_of, find, send, spawn
from graylift.domain.revision import Instance, InstanceState, Revision, RunningEndpoint, ServedEngine
from graylift.domain.spec import ServingProtocol, TensorName
from graylift.errors import DeployError

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
SERVE = (sys.executable, "-P", "-m", "graylift.serve")
"""-P: a file of the user's working directory, say onnx.py, is not taken for a module."""

_READY_TIMEOUT = aiohttp.ClientTimeout(total=1.0)
_KILL_AFTER_DRAIN_S = 5.0
_PREVIOUS_LOG_BYTES = 1 << 20
_SHOWN_LINES, _SHOWN_BYTES = 10, 4096

_STEADY_S = 60.0
"""A server that lived this long is no crash loop: it is restarted at once."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0


@dataclass(frozen=True, slots=True)
class _Server:
    """What was started. Times are seconds since the machine's boot, which every process on it counts alike.

    process: None from before the start until it is known
    deaths:  how often it ended by itself in a row, before this start
    ended:   how it ended, None while it runs
    """

    command: tuple[str, ...]
    port: int
    started_s: float
    process: ProcessId | None = None
    deaths: int = 0
    ended: str | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"


@dataclass(frozen=True, slots=True)
class _Leaving:
    """A server that was told to end, and is killed at `kill_at_s`."""

    process: ProcessId
    port: int
    kill_at_s: float


@dataclass(frozen=True, slots=True)
class _Record:
    """All that is known of one revision on this machine."""

    server: _Server | None = None
    leaving: tuple[_Leaving, ...] = ()


class ProcessDeployer:
    """ports.Deployer with one process a revision, listening on a loopback port.

    artefacts: folder of the artefact store
    drain_s:   what a server may take to finish its requests once it is told to end
    serve:     how a model server is started; its options follow
    monotonic: seconds since boot
    """

    def __init__(
        self,
        root: Path,
        artefacts: Path,
        *,
        drain_s: float = 20.0,
        serve: Sequence[str] = SERVE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root.resolve()
        self._artefacts = artefacts.resolve()
        self._drain_s = drain_s
        self._serve = tuple(serve)
        self._monotonic = monotonic
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Let go of the health checks' connections. The servers live on."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ensure(self, revision: Revision) -> None:
        match revision.backend:
            case ServedEngine() as engine:
                self._ensure(revision, engine)
            case RunningEndpoint():
                pass
            case _:
                assert_never(revision.backend)

    async def observe(self, revisions: Sequence[Revision]) -> Sequence[Instance]:
        self._tend_all()  # also of those that nobody asks for any more, but whose time to end is over
        return await asyncio.gather(*(self._observe(revision) for revision in revisions))

    async def running(self) -> Sequence[str]:
        return [revision_id for revision_id, record in self._tend_all() if record.server is not None]

    async def stop(self, revision_id: str) -> None:
        record = self._tend(revision_id)
        server = record.server
        if server is None:
            return
        if server.process is not None and server.ended is None:
            kill_at_s = self._monotonic() + self._drain_s + _KILL_AFTER_DRAIN_S
            leaving = (*record.leaving, _Leaving(server.process, server.port, kill_at_s))
            self._write(revision_id, _Record(None, leaving))
            send(server.process, signal.SIGTERM)
        else:
            self._write(revision_id, replace(record, server=None))

    async def ending(self) -> Sequence[str]:
        """Ids of revisions whose server was stopped and still finishes its requests."""
        return [revision_id for revision_id, record in self._tend_all() if record.leaving]

    def _ensure(self, revision: Revision, engine: ServedEngine) -> None:
        record = self._tend(revision.id)
        last = record.server
        if last is not None and (last.ended is None or self._waits(last)):
            return
        port = last.port if last is not None and _is_free(last.port) else self._new_port()
        server = _Server(
            command=self._command(revision, engine, port),
            port=port,
            started_s=self._monotonic(),
            deaths=0 if last is None else self._deaths(last) + 1,
        )
        # First the intent: should we be killed before the pid is written, `_tend` finds the process by its command.
        self._write(revision.id, replace(record, server=server))
        said = self._log(revision.id)
        _set_aside(said)
        try:
            process = spawn(server.command, said, {**os.environ, "PYTHONUNBUFFERED": "1"})
        except DeployError:
            self._write(revision.id, replace(record, server=None))
            raise
        self._write(revision.id, replace(record, server=replace(server, process=process)))

    def _command(self, revision: Revision, engine: ServedEngine, port: int) -> tuple[str, ...]:
        return (
            *self._serve,
            *("--artefacts", str(self._artefacts), "--artefact", engine.artefact),
            *("--service", revision.service, "--revision", revision.id, "--port", str(port)),
            *("--drain-timeout", f"{self._drain_s:g}"),
            *_renamings("--input", engine.inputs),
            *_renamings("--output", engine.outputs),
            *("--contexts", str(engine.serving.contexts), "--max-batch", str(engine.serving.max_batch)),
            *("--max-queue-delay", f"{engine.serving.max_queue_delay_s:g}"),
            *("--max-queue", str(engine.serving.max_queue)),
        )

    def _deaths(self, last: _Server) -> int:
        """Ends in quick succession before this one."""
        lived_s = self._monotonic() - last.started_s  # negative if it was started before the machine's last boot
        return last.deaths if 0 <= lived_s < _STEADY_S else 0

    def _waits(self, last: _Server) -> bool:
        """Must a server that ended wait before it is started again? The first restart is at once."""
        deaths = self._deaths(last)
        wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** (deaths - 1)) if deaths else 0.0
        return self._monotonic() - last.started_s < wait_s

    async def _observe(self, revision: Revision) -> Instance:
        match revision.backend:
            case RunningEndpoint(url, protocol):
                why_not = await self._why_not_ready(url, protocol)
                state = InstanceState.READY if why_not is None else InstanceState.STARTING
                return Instance(revision.id, state, urlsplit(url).netloc, why_not or "")
            case ServedEngine():
                return await self._observe_server(revision.id)
            case _:
                assert_never(revision.backend)

    async def _observe_server(self, revision_id: str) -> Instance:
        try:
            server = self._tend(revision_id).server
        except DeployError as error:
            return Instance(revision_id, InstanceState.DEAD, detail=str(error))
        if server is None:
            return Instance(revision_id, InstanceState.ABSENT)
        if server.ended is not None:
            return self._instance(revision_id, server, InstanceState.DEAD, f"its server {server.ended}")
        why_not = await self._why_not_ready(f"http://{server.address}", ServingProtocol.OPEN_INFERENCE)
        if why_not is None:
            return Instance(revision_id, InstanceState.READY, server.address)
        # It may have ended since, and that would be the better answer.
        now = self._tend(revision_id).server
        if now is not None and now.ended is not None:
            return self._instance(revision_id, now, InstanceState.DEAD, f"its server {now.ended}")
        return self._instance(revision_id, server, InstanceState.STARTING, f"not ready: {why_not}")

    def _instance(self, revision_id: str, server: _Server, state: InstanceState, why: str) -> Instance:
        file = self._log(revision_id)
        lines = _last_lines(file)
        said = f"the last lines of {file}:\n" + "\n".join(f"  {line}" for line in lines) if lines else "it said nothing"
        return Instance(revision_id, state, server.address, f"{why}; {said}")

    async def _why_not_ready(self, url: str, protocol: ServingProtocol) -> str | None:
        """None if the server at `url` says that it is ready."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_READY_TIMEOUT)
        asked = url.rstrip("/") + protocol.ready_path
        try:
            async with self._session.get(asked, allow_redirects=False) as answer:
                is_ready = answer.status in protocol.ready_statuses
                return None if is_ready else f"{asked} answered {answer.status}, not {protocol.ready_statuses[0]}"
        except TimeoutError:
            return f"{asked} did not answer within {_READY_TIMEOUT.total:g} s"
        except aiohttp.ClientConnectorError as error:
            return f"{asked} does not answer: {os.strerror(error.errno) if error.errno else error}"
        except aiohttp.ClientError as error:
            return f"{asked} does not answer: {error}"

    def _tend_all(self) -> list[tuple[str, _Record]]:
        """All records that can be read. One that cannot must not hide the others: `_observe_server` shows it."""
        tended: list[tuple[str, _Record]] = []
        for file in sorted(self._root.glob("*/server.json")):
            with suppress(DeployError):
                tended.append((file.parent.name, self._tend(file.parent.name)))
        return tended

    def _tend(self, revision_id: str) -> _Record:
        """Bring the record up to what the processes did since, kill what had its time, and return it."""
        record = self._read(revision_id)
        tended = _Record(_as_it_is(record.server), tuple(self._still_leaving(record.leaving)))
        if tended != record:
            try:
                self._write(revision_id, tended)
            except DeployError as error:
                # A full disk must not hide that a server died. The record is behind until a later look writes it.
                log.warning("%s", error)
        return tended

    def _still_leaving(self, leaving: Iterable[_Leaving]) -> Iterable[_Leaving]:
        for server in leaving:
            if end_of(server.process) is None:
                if self._monotonic() >= server.kill_at_s:
                    send(server.process, signal.SIGKILL)
                yield server

    def _new_port(self) -> int:
        """A free port that no other server of ours was promised."""
        records = [record for _, record in self._tend_all()]
        promised = {server.port for record in records for server in (record.server, *record.leaving) if server}
        while True:
            with socket.socket() as probe:
                probe.bind((HOST, 0))
                port: int = probe.getsockname()[1]
            if port not in promised:
                return port

    def _log(self, revision_id: str) -> Path:
        return self._root / revision_id / "server.log"

    def _state(self, revision_id: str) -> Path:
        return self._root / revision_id / "server.json"

    def _read(self, revision_id: str) -> _Record:
        file = self._state(revision_id)
        try:
            return value_from(_Record, file.read_bytes())
        except FileNotFoundError:
            return _Record()
        except OSError as error:
            raise DeployError(f"cannot read {file}: {error.strerror}") from error
        except ValueError as error:
            raise DeployError(f"{file} is damaged: {error}. End the server it meant by hand, then delete it") from error

    def _write(self, revision_id: str, record: _Record) -> None:
        file = self._state(revision_id)
        try:
            if record == _Record():
                file.unlink(missing_ok=True)
                return
            file.parent.mkdir(parents=True, exist_ok=True)
            new = file.with_suffix(".new")
            with new.open("w") as stream:
                stream.write(document_from(record))
                stream.flush()
                os.fsync(stream.fileno())
            new.replace(file)
        except OSError as error:
            raise DeployError(f"cannot write {file}: {error.strerror}") from error


def _as_it_is(server: _Server | None) -> _Server | None:
    """The server with its process and its end, as far as they are known by now; None if it was never started."""
    if server is None or server.ended is not None:
        return server
    if server.process is None:
        process = find(server.command)
        return None if process is None else replace(server, process=process)
    return replace(server, ended=end_of(server.process))


def _renamings(flag: str, names: Iterable[TensorName]) -> Iterable[str]:
    for name in names:
        yield from (flag, f"{name.served}={name.own}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server will: connections of its predecessor that still fade away do not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _set_aside(file: Path) -> None:
    """Make room for the next start: keep the end of what the last one said, forget the one before."""
    try:
        file.with_name(f"{file.name}.1").write_bytes(_end_of(file, _PREVIOUS_LOG_BYTES))
        file.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise DeployError(f"cannot set {file} aside: {error.strerror}") from error


def _last_lines(file: Path) -> list[str]:
    try:
        return _end_of(file, _SHOWN_BYTES).decode(errors="replace").splitlines()[-_SHOWN_LINES:]
    except OSError:
        return []


def _end_of(file: Path, size_bytes: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - size_bytes))
        return stream.read()
