"""`graylift serve`: one model by itself. The engine is built or found here; then this process becomes its server.

The server's own log, on standard error, goes on from there: what it loaded, which batches and contexts it chose, why.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from graylift.cli.building import built, engine_spec
from graylift.cli.inspecting import found
from graylift.cli.installation import installation_from
from graylift.cli.interrupts import INTERRUPTED, Interrupted, until_stopped
from graylift.cli.live import console
from graylift.cli.passport import print_rows
from graylift.domain.engine import Precision, Runtime
from graylift.domain.spec import AUTO
from graylift.engine.artefacts import ArtefactStore
from graylift.errors import CommandRefused
from graylift.spec.units import seconds_from_text

_SERVER = (sys.executable, "-P", "-m", "graylift.serve")
"""-P: a file of the user's working directory, say onnx.py, is not taken for a module."""


@dataclass(frozen=True, slots=True)
class Source:
    """How an ONNX file is built; of no meaning for an engine that is there."""

    runtime: Runtime
    precision: Precision
    profiles: tuple[str, ...]
    threads: int


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the server is told, as typed."""

    name: str
    host: str
    port: int
    grpc_port: int | None
    contexts: str
    max_batch: str
    max_queue_delay: str
    latency_target: str | None
    max_queue: int
    max_body: int
    drain_timeout: str


def serve(target: str, wishes: Wishes, source: Source, state: Path | None) -> None:
    """Comes back only with an error: CommandRefused, or EngineError if the model cannot be built."""
    options = _options(wishes)
    installation = installation_from(state)
    if target.endswith(".onnx") and not (Path(target).parent / "manifest.json").exists():
        spec = engine_spec(Path(target), source.runtime, source.precision, source.profiles, source.threads)
        try:
            manifest, _ = asyncio.run(until_stopped(built(installation, spec, quiet=False)))
        except Interrupted:
            sys.stderr.write("interrupted; nothing of the build was kept\n")
            raise SystemExit(INTERRUPTED) from None
        root = installation.artefacts
    else:
        root, digest = found(target, installation.artefacts)
        manifest = ArtefactStore(root).manifest(digest)
    host = f"[{wishes.host}]" if ":" in wishes.host else wishes.host
    rows = [
        ("engine", (f"{manifest.digest[:12]}, {manifest.runtime.value}, {manifest.precision.value}",)),
        ("takes", tuple(map(str, manifest.interface.inputs))),
        ("gives", tuple(map(str, manifest.interface.outputs))),
    ]
    if wishes.port:
        url = f"http://{host}:{wishes.port}"
        rows += [("infer", (f"{url}/v2/models/{wishes.name}/infer",)), ("metrics", (f"{url}/metrics",))]
    if wishes.grpc_port:
        rows.append(("gRPC", (f"{host}:{wishes.grpc_port}",)))
    print_rows(console, rows)
    sys.stdout.flush()
    identity = ("--artefacts", str(root), "--artefact", manifest.digest, "--service", wishes.name)
    revision = ("--revision", f"{wishes.name}.{manifest.digest[:12]}")
    os.execv(_SERVER[0], (*_SERVER, *identity, *revision, *options))  # noqa: S606


def _options(wishes: Wishes) -> tuple[str, ...]:
    """The server's own. CommandRefused where one cannot be, before anything is built."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", wishes.name):
        raise CommandRefused(f"--name is part of a path: letters, digits, '-', '_' and '.', not {wishes.name!r}")
    for option, value, most in (("--contexts", wishes.contexts, 256), ("--max-batch", wishes.max_batch, 65_536)):
        if value != AUTO and not (value.isdecimal() and 1 <= int(value) <= most):
            raise CommandRefused(f"{option} is a whole number from 1 to {most:,}, or {AUTO}; not {value!r}")
    seconds = {
        "--max-queue-delay": _seconds("--max-queue-delay", wishes.max_queue_delay),
        "--drain-timeout": _seconds("--drain-timeout", wishes.drain_timeout),
    }
    if wishes.latency_target is not None:
        seconds["--latency-target"] = _seconds("--latency-target", wishes.latency_target)
    options = {
        "--host": wishes.host,
        "--port": str(wishes.port),
        "--contexts": wishes.contexts,
        "--max-batch": wishes.max_batch,
        "--max-queue": str(wishes.max_queue),
        "--max-body": str(wishes.max_body),
        **{option: f"{value:g}" for option, value in seconds.items()},
    }
    if wishes.grpc_port is not None:
        options["--grpc-port"] = str(wishes.grpc_port)
    return tuple(word for pair in options.items() for word in pair)


def _seconds(option: str, text: str) -> float:
    try:
        return seconds_from_text(text)
    except ValueError as exc:
        raise CommandRefused(f"{option} {text}: {exc}") from exc
