"""An agent as a process of its own, to be killed; says when it runs. Arguments: folder, listen port, max_log_bytes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from graylift.gateway.agent import GatewayAgent
from graylift.gateway.config import GatewayConfig


async def main(folder: str, port: str, max_log_bytes: str) -> None:
    config = GatewayConfig(
        name="g1",
        state_dir=Path(folder),
        listen_port=int(port),
        workers=1,
        interval_s=0.25,
        max_log_bytes=int(max_log_bytes),
    )
    async with GatewayAgent(config):
        print("running", flush=True)
        await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
