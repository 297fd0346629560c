"""Trials, started: an engine or its source runs cases in a process of its own, which alone ends if native code crashes.

The other side is `engine/trial.py`. Called by the checks that compare answers.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence

from graylift.checks.workplace import Workplace
from graylift.domain.engine import Manifest
from graylift.engine.cases import write_cases
from graylift.engine.child import demand_success
from graylift.engine.trial import Answer, answers_from
from graylift.errors import EngineError
from graylift.protocols.datatypes import Tensor

ENGINE = (sys.executable, "-P", "-m", "graylift.engine")
TIMEOUT_S = 900.0

Cases = Sequence[Mapping[str, Tensor]]
"""One inference each: a tensor for each input, under the model's own names."""


async def answers_of_engine(workplace: Workplace, manifest: Manifest, cases: Cases, contexts: int = 1) -> list[Answer]:
    """One answer a case; with several contexts one more for each case and context, context by context.

    EngineError if the engine cannot be loaded, crashes, or does not end in time.
    """
    arguments = ("run", "--artefacts", str(workplace.artefacts), "--artefact", manifest.digest)
    count = len(cases) * (1 if contexts == 1 else 1 + contexts)
    return await _answers(workplace, (*arguments, "--contexts", str(contexts)), cases, count)


async def said_by_engine(workplace: Workplace, what: str, manifest: Manifest, options: Sequence[str]) -> bytes:
    """The line that a trial of another kind gives. EngineError as above."""
    arguments = (what, "--artefacts", str(workplace.artefacts), "--artefact", manifest.digest)
    return await _said((*ENGINE, *arguments, *options), what)


async def answers_of_source(workplace: Workplace, onnx: str, manifest: Manifest, cases: Cases) -> list[Answer]:
    """One answer a case, of the model that the engine of `manifest` was built from. EngineError as above, and if the
    file was changed since."""
    arguments = ("reference", "--onnx", onnx, "--sha256", manifest.sources[0][1])
    return await _answers(workplace, arguments, cases, len(cases))


async def _answers(workplace: Workplace, arguments: Sequence[str], cases: Cases, count: int) -> list[Answer]:
    inputs, outputs = workplace.scratch / "inputs.npz", workplace.scratch / "outputs.npz"
    await asyncio.to_thread(write_cases, inputs, cases)
    try:
        said = await _said((*ENGINE, *arguments, "--inputs", str(inputs), "--outputs", str(outputs)), arguments[0])
        return await asyncio.to_thread(answers_from, said, outputs, count)
    finally:
        for file in (inputs, outputs):
            file.unlink(missing_ok=True)


async def _said(command: Sequence[str], what: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us; we end the trial if it shall end
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            said, complained = await process.communicate()
    except TimeoutError as error:
        raise EngineError(f"the {what} did not end within {TIMEOUT_S:g} s and was killed") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    demand_success(f"the {what}", process.returncode or 0, complained)
    return said
