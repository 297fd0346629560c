"""The command line of the model server. Started by the deployer; a person may type it too."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from graylift.domain.spec import AUTO, Auto, TensorName
from graylift.engine.language import LanguageSettings

MOST_CONTEXTS = 8
"""That a measurement tries: each loads the engine anew."""


@dataclass(frozen=True, slots=True)
class Options:
    """What one server is told.

    artefact:  digest of the engine
    service:   the model name that clients use
    version:   the revision's name, as clients may put it into the path
    contexts:  inferences at once; AUTO: as many as pay, by measurement
    max_batch: rows of one inference, at most; 1 runs each request alone; AUTO: as many as pay, by measurement
    latency_target_s: what a request may take while the server keeps up; batches are no larger than that allows
    max_queue_delay_s: how long a request may wait for company while a context is free
    max_queue: requests that may wait for their turn; the next one is refused
    language:  how a language engine is run, which is served over OpenAI's API; None for an engine of tensors
    end_with_stdin: end when stdin is closed, as after SIGTERM: whoever started this server then cannot leave it behind,
                    however it ends itself
    """

    artefacts: Path
    artefact: str
    service: str
    revision_id: str
    host: str
    port: int
    inputs: tuple[TensorName, ...]
    outputs: tuple[TensorName, ...]
    grpc_port: int | None
    contexts: int | Auto
    max_batch: int | Auto
    latency_target_s: float | None
    max_queue_delay_s: float
    max_queue: int
    max_body_bytes: int
    drain_timeout_s: float
    end_with_stdin: bool
    language: LanguageSettings | None = None

    @property
    def version(self) -> str:
        name, _, digest = self.revision_id.removeprefix(f"{self.service}.").rpartition(".")
        return name or digest


def options_from_arguments(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line (sys.argv by default). Exits with 2 and the usage if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m graylift.serve",
        description="Serve one engine over the Open Inference Protocol v2.",
        epilog="Exit status: 0 after SIGTERM or SIGINT, 2 wrong usage, 3 the engine cannot be loaded, "
        "4 the address cannot be listened on.",
    )
    add = parser.add_argument
    add("--artefacts", type=Path, required=True, metavar="DIR", help="folder of the artefact store")
    add("--artefact", required=True, metavar="HEX", help="digest of the engine to serve")
    add("--service", required=True, metavar="NAME", help="the model name that clients use")
    add("--revision", required=True, metavar="ID", help="revision id: service.name.digest")
    add("--port", type=_port, required=True, metavar="N", help="port to listen on (0: any free one, see the log)")
    add("--grpc-port", type=_port, metavar="N", help="port for the protocol's gRPC form (default: none)")
    add("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    for flag in ("--input", "--output"):
        add(flag, type=_tensor_name, action="append", default=[], metavar="SERVED=OWN",
            help=f"serve the model's {flag[2:]} OWN under the name SERVED; may be repeated")  # fmt: skip
    add("--contexts", type=_at_least_1_or_auto, default=1, metavar="N",
        help="inferences at once (default %(default)s), or auto: as many as pay, measured at the start")  # fmt: skip
    add("--max-batch", type=_at_least_1_or_auto, default=1, metavar="ROWS",
        help="rows that may share one inference (default %(default)s: each request runs alone), or auto: as many as "
        "pay, measured at the start")  # fmt: skip
    add("--latency-target", type=_seconds, metavar="S",
        help="seconds a request may take while the server keeps up: no batch is larger than that allows, as measured "
        "at the start (default: any)")  # fmt: skip
    add("--max-queue-delay", type=_seconds, default=0.0, metavar="S",
        help="seconds a request may wait for others while a context is free: larger batches for its latency "
        "(default %(default)s: batches form while all contexts are busy)")  # fmt: skip
    add("--max-queue", type=_at_least_0, default=256, metavar="N",
        help="requests that may wait for their turn, the next one gets 503 (default %(default)s)")  # fmt: skip
    add("--max-body", type=_at_least_1, default=64 * 2**20, metavar="BYTES",
        help="longest request body, a longer one gets 413 (default %(default)s)")  # fmt: skip
    add("--drain-timeout", type=_seconds, default=20.0, metavar="S",
        help="seconds that running requests may take after SIGTERM (default %(default)s)")  # fmt: skip
    add("--end-with-stdin", action="store_true", help="end when stdin is closed, as after SIGTERM")
    add("--context-length", type=_at_least_1, metavar="TOKENS",
        help="serve a language engine over OpenAI's API: tokens of prompt and answer together, at most")  # fmt: skip
    add("--max-streams", type=_at_least_1, default=8, metavar="N",
        help="answers of a language engine that are written at once (default %(default)s)")  # fmt: skip
    add("--threads", type=_at_least_1, default=1, metavar="N",
        help="threads of a language engine (default %(default)s)")  # fmt: skip
    given = parser.parse_args(arguments)
    language = None
    if given.context_length is not None:
        if given.grpc_port is not None:
            parser.error("--grpc-port is of the Open Inference Protocol, which language engines do not speak")
        language = LanguageSettings(given.threads, given.context_length, given.max_streams)
    return Options(
        artefacts=given.artefacts,
        artefact=given.artefact,
        service=given.service,
        revision_id=given.revision,
        host=given.host,
        port=given.port,
        grpc_port=given.grpc_port,
        inputs=tuple(given.input),
        outputs=tuple(given.output),
        contexts=given.contexts,
        max_batch=given.max_batch,
        latency_target_s=given.latency_target,
        max_queue_delay_s=given.max_queue_delay,
        max_queue=given.max_queue,
        max_body_bytes=given.max_body,
        drain_timeout_s=given.drain_timeout,
        end_with_stdin=given.end_with_stdin,
        language=language,
    )


def _tensor_name(text: str) -> TensorName:
    # A tensor's own name may hold "=", a served one is chosen by people and may not.
    served, equals, own = text.partition("=")
    if not (served and equals and own):
        raise argparse.ArgumentTypeError(f"expected SERVED=OWN, got {text!r}")
    return TensorName(served, own)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")
    return int(text)


def _at_least_0(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected an integer from 0 on, got {text!r}")
    return int(text)


def _at_least_1(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer from 1 on, got {text!r}")
    return int(text)


def _at_least_1_or_auto(text: str) -> int | Auto:
    return AUTO if text == AUTO else _at_least_1(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"expected seconds from 0 to 86400, got {text!r}")
    return seconds
