"""Real commands, as people and scripts call them, in a folder of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Shell:
    """Its working directory is `folder`, its installation lies in `folder`/state."""

    folder: Path

    @property
    def artefacts(self) -> Path:
        return self.folder / "state" / "artefacts"

    def start(self, *arguments: str | Path, stderr: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
        return subprocess.Popen(
            (sys.executable, "-m", "graylift", *map(str, arguments)),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=self.folder,
            env={**os.environ, "GRAYLIFT_STATE": str(self.folder / "state")},
        )

    def call(self, *arguments: str | Path) -> Said:
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=90)
        finally:
            process.kill()
        return Said(process.returncode, out, err)

    def processes(self) -> list[str]:
        """Command lines of all that work for this folder now."""
        lines: list[str] = []
        for entry in Path("/proc").iterdir():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(self.folder) in line:
                lines.append(line)
        return lines
