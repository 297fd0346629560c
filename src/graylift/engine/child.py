"""One build or check in a process of its own: native code that crashes or runs out of memory ends that process alone,
and a cancelled build can be ended at once. Called by `checks/` and by the commands.

The child (`__main__`) writes lines of JSON: its steps, then the manifest. What libraries write goes to its stderr.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import orjson

from graylift.domain.engine import EngineSpec, GgufSpec, Manifest
from graylift.engine.artefacts import ArtefactStore, manifest_from_json
from graylift.engine.progress import Progress, progress_from_line, unheard
from graylift.errors import EngineError
from graylift.spec.profiles import texts_from_profiles

BUILD = (sys.executable, "-P", "-m", "graylift.engine", "build")
CHECK = (sys.executable, "-P", "-m", "graylift.engine", "check")
"""-P: a file of the user's working directory, say onnx.py, is not taken for a module."""

_LONGEST_LINE = 64 * 2**20
"""Bytes. A manifest names every source file."""


async def build_engine(
    spec: EngineSpec | GgufSpec, artefacts: Path, progress: Progress = unheard, *, command: Sequence[str] = BUILD
) -> Manifest:
    """The artefact of `spec` in the store at `artefacts`, built in a child process or found.

    progress: called in the running loop for each step of the child
    command:  how a build is started; its options follow

    Raises EngineError with one sentence: the builder's own if the model is at fault. Whoever cancels this ends the
    build; nothing of it stays.
    """
    succeeded = False
    try:
        options = ("--progress", "--artefacts", str(artefacts), *_options(spec))
        said = await _said_by("build", (*command, *options), progress)
        succeeded = True
    finally:
        if not succeeded:
            ArtefactStore(artefacts).sweep()
    try:
        return manifest_from_json(said)
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(f"the build gave no manifest but {_quoted(said)}") from error


async def check_engine(spec: EngineSpec | GgufSpec, *, command: Sequence[str] = CHECK) -> tuple[str, ...]:
    """What `Vendor.check` says of `spec`, from a child process. EngineError with one sentence if it does not fit."""
    said = await _said_by("check", (*command, *_options(spec)), unheard)
    try:
        facts: object = orjson.loads(said)
    except orjson.JSONDecodeError as error:
        raise EngineError(f"the check gave no facts but {_quoted(said)}") from error
    if not isinstance(facts, list):
        raise EngineError(f"the check gave no facts but {_quoted(said)}")
    return tuple(map(str, cast("list[object]", facts)))


async def _said_by(what: str, command: Sequence[str], progress: Progress) -> bytes:
    """The answer of a child that ended well. EngineError if it did not."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
            start_new_session=True,  # Ctrl-C is for us; we end the child if it shall end
        )
    except OSError as error:
        raise EngineError(f"the {what} cannot be started with {command[0]}: {error.strerror}") from error
    assert process.stdout is not None
    assert process.stderr is not None
    complaints = asyncio.ensure_future(process.stderr.read())
    try:
        said = await _last_line(process.stdout, progress)
        complained = await complaints
        status = await process.wait()
    finally:
        complaints.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()
    demand_success(f"the {what}", status, complained)
    return said


def _options(spec: EngineSpec | GgufSpec) -> tuple[str, ...]:
    """What `__main__` reads back into the spec."""
    if isinstance(spec, GgufSpec):
        options = ("--gguf", spec.gguf, "--runtime", spec.runtime.value, "--packing", spec.packing.value)
        return options if spec.chat_template is None else (*options, "--chat-template", spec.chat_template)
    options = ("--onnx", spec.onnx, "--runtime", spec.runtime.value)
    options += ("--threads", str(spec.threads), "--precision", spec.precision.value)
    for text in texts_from_profiles(spec.profiles):
        options += ("--profile", text)
    if spec.calibration is not None:
        options += ("--calibration", spec.calibration)
    for name, value in spec.settings:
        options += ("--set", f"{name}={value}")
    return options


async def _last_line(stream: asyncio.StreamReader, progress: Progress) -> bytes:
    """The last line that is no step; each step is passed on."""
    last = b""
    while line := await stream.readline():
        step = progress_from_line(line)
        if step is None:
            last = line
        else:
            progress(*step)
    return last


def demand_success(what: str, status: int, complained: bytes) -> None:
    """EngineError unless the child ended well: with its own last sentence, or with how it was ended."""
    last = (complained.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    if status == 2:
        raise EngineError(last)
    if status < 0:
        raise EngineError(f"{what} was killed by {_name_of(-status)}; the last it said: {last}")
    if status > 0:
        raise EngineError(f"{what} ended with status {status}: {last}")


def _quoted(said: bytes) -> str:
    return repr(said[:200].decode(errors="replace").strip())


def _name_of(number: int) -> str:
    if number == signal.SIGKILL:
        return "SIGKILL (by a person, or because the machine ran out of memory)"
    return signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"
