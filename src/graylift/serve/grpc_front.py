"""The gRPC front: the Open Inference Protocol's service and the standard health service, on the server's own loop.

What is between a message and its answer is `inference`, as for HTTP. A client that leaves, or whose deadline is over,
cancels its call, and so its place in the queue. Without reflection: the messages are in a package of our own, so what
it would tell is not the standard's. Imported by `server` only when a port for it is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import Any, Protocol, TypeVar, assert_never

import grpc
import grpc.aio

from graylift.errors import (
    EngineError,
    GrayliftError,
    InputError,
    NotComputable,
    NotServed,
    ProtocolError,
    Refusal,
)
from graylift.protocols.open_inference_grpc import (
    message_from_outputs,
    model_metadata_message,
    request_from_message,
    server_metadata_message,
)
from graylift.protos import health_pb2
from graylift.protos import open_inference_pb2 as pb
from graylift.serve.inference import Inference, Leave, Stage

SERVICE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"

_ENVELOPE_BYTES = 64 * 1024
"""What a message has beside its tensors."""


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802  # as protobuf calls it


Context = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request")
Method = Callable[[Request, Context], Awaitable[_Message]]


class GrpcFront:
    """Made in the loop it serves on. OSError from `start` if the address cannot be had."""

    def __init__(self, inference: Inference, *, max_body_bytes: int) -> None:
        self._inference = inference
        longest = max_body_bytes + _ENVELOPE_BYTES
        options = [
            ("grpc.max_receive_message_length", min(longest, 2**31 - 1)),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers((self._inference_handlers(), self._health_handlers()))

    async def start(self, host: str, port: int) -> int:
        """Listen; the port."""
        address = f"[{host}]" if ":" in host else host
        try:
            bound = self._server.add_insecure_port(f"{address}:{port}")
        except RuntimeError as exc:
            raise OSError(str(exc)) from exc
        await self._server.start()
        return bound

    async def stop(self, grace_s: float) -> None:
        """New calls are refused from now on; those that run have so long."""
        await self._server.stop(grace_s)

    def _inference_handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "ServerLive": _unary(pb.Empty.FromString, self._live),
                "ServerReady": _unary(pb.Empty.FromString, self._ready),
                "ServerMetadata": _unary(pb.Empty.FromString, self._metadata),
                "ModelReady": _unary(pb.ModelRequest.FromString, self._model_ready),
                "ModelMetadata": _unary(pb.ModelRequest.FromString, self._model_metadata),
                "ModelInfer": _unary(pb.ModelInferRequest.FromString, self._infer),
            },
        )

    def _health_handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            HEALTH, {"Check": _unary(health_pb2.HealthCheckRequest.FromString, self._check)}
        )

    @property
    def _is_ready(self) -> bool:
        return self._inference.stage is Stage.READY

    async def _live(self, _request: pb.Empty, _context: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def _ready(self, _request: pb.Empty, _context: Context) -> pb.ReadyResponse:
        return pb.ReadyResponse(ready=self._is_ready)

    async def _metadata(self, _request: pb.Empty, _context: Context) -> pb.ServerMetadataResponse:
        return server_metadata_message("graylift", metadata.version("graylift"))

    async def _model_ready(self, request: pb.ModelRequest, context: Context) -> pb.ReadyResponse:
        await self._demand_ours(request.name, request.version, context)
        return pb.ReadyResponse(ready=self._is_ready)

    async def _model_metadata(self, request: pb.ModelRequest, context: Context) -> pb.ModelMetadataResponse:
        await self._demand_ours(request.name, request.version, context)
        model = self._inference.model
        if model is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the model is still loading")
        return model_metadata_message(self._inference.service, self._inference.version, model.platform, model.interface)

    async def _check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        if request.service not in ("", SERVICE):
            known = f"{SERVICE} or nothing, for the whole server"
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"no service {request.service[:100]!r} here; ask for {known}"
            )
        status = (
            health_pb2.HealthCheckResponse.SERVING if self._is_ready else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        return health_pb2.HealthCheckResponse(status=status)

    async def _infer(self, message: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        await self._demand_ours(message.model_name, message.model_version, context)
        began_s = time.perf_counter()
        metrics = self._inference.metrics
        try:
            self._inference.served()
            try:
                request = request_from_message(message)
            except ProtocolError:
                metrics.failed("OTHER")
                raise
            metrics.parsed(time.perf_counter() - began_s)
            outputs = await self._inference.outputs(request, _cancelled_by_grpc)
            assert outputs is not None, "a client that leaves cancels this call"
            computed_s = time.perf_counter()
            service, version = self._inference.service, self._inference.version
            answer = message_from_outputs(request, outputs, model=service, version=version)
        except GrayliftError as exc:
            await context.abort(_status_of(exc), str(exc))
        ended_s = time.perf_counter()
        metrics.rendered(ended_s - computed_s)
        metrics.answered(ended_s - began_s)
        return answer

    async def _demand_ours(self, name: str, version: str, context: Context) -> None:
        if not self._inference.serves(name, version):
            ours = f"{self._inference.service!r}, version {self._inference.version!r}"
            given = f"{name[:100]!r}" + (f", version {version[:100]!r}" if version else "")
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no such model here: {given}; this server serves {ours}")


def _unary(read: Callable[[bytes], Request], method: Method[Request]) -> Any:
    return grpc.unary_unary_rpc_method_handler(method, request_deserializer=read, response_serializer=_written)


def _written(message: _Message) -> bytes:
    return message.SerializeToString()


def _cancelled_by_grpc(leave: Leave) -> None:
    """Nothing to call: a call that ends early is cancelled by the library."""


def _status_of(error: GrayliftError) -> grpc.StatusCode:
    match error:
        case NotServed():
            match error.why:
                case Refusal.NOT_READY | Refusal.BUSY:
                    return grpc.StatusCode.UNAVAILABLE
                case Refusal.TOO_LATE:
                    return grpc.StatusCode.DEADLINE_EXCEEDED
                case _:
                    assert_never(error.why)
        case ProtocolError() | InputError():
            return grpc.StatusCode.INVALID_ARGUMENT
        case NotComputable():  # the request is well, and another revision may answer it
            return grpc.StatusCode.FAILED_PRECONDITION
        case EngineError():
            return grpc.StatusCode.INTERNAL
        case _:
            return grpc.StatusCode.UNKNOWN
