"""A server of a language model as a child process, ready to be asked."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from graylift.domain.engine import Manifest

CONTEXT = 512
STREAMS = 3


@dataclass(frozen=True, slots=True)
class Server:
    """A started server. url: http://host:port"""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    async def stopped(self) -> int:
        """The exit status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, 60)


def start(artefacts: Path, engine: Manifest, log: Path, *options: str) -> Server:
    """A server of service `assistant` that is ready."""
    command = [sys.executable, "-m", "graylift.serve", "--artefacts", str(artefacts), "--artefact", engine.digest,
               "--service", "assistant", "--revision", f"assistant.q8.{engine.digest[:12]}", "--port", "0",
               "--context-length", str(CONTEXT), "--max-streams", str(STREAMS), *options]  # fmt: skip
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:
        while (said := re.search(r"start: \S+ on (\S+:\d+)", log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        url = f"http://{said[1]}"
        while not _is_ready(url):
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return Server(process, url, log)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
