"""`python -m graylift.engine build|check|inspect`: native code in a process of its own, so that a crash ends only that.

`build` prints the manifest as one line of JSON, with --progress a line for each step before it. `check` prints a list
of facts, without building. `inspect` prints all that is known of an artefact, and why it does not run here if it does
not. `run` and `reference` are trials: an engine, or its source, on the cases of a file. Exit 2 with one sentence on
stderr if the model cannot be built or would not run here, 130 if it was interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import orjson

from graylift.domain.engine import EngineSpec, Inspection, Precision, Runtime
from graylift.engine.artefacts import ArtefactStore, json_from_manifest
from graylift.engine.load import why_foreign
from graylift.engine.progress import Progress, Sparing, line_from_progress, unheard
from graylift.engine.trial import try_engine, try_source
from graylift.engine.vendors import vendor_of
from graylift.errors import EngineError
from graylift.spec.profiles import profiles_from_texts
from graylift.spec.settings import settings_from_texts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m graylift.engine", description=__doc__)
    commands = parser.add_subparsers(required=True)
    build = commands.add_parser("build", help="build an engine, or find it if it was built")
    build.set_defaults(act=_build)
    build.add_argument("--artefacts", type=Path, required=True, metavar="DIR", help="folder of the artefact store")
    build.add_argument("--progress", action="store_true", help="print a line of JSON for each step")
    check = commands.add_parser("check", help="say whether an engine could be built and would run here")
    check.set_defaults(act=_check)
    for command in (build, check):
        _add_options(command)
    run = commands.add_parser("run", help="run an engine on the cases of a file")
    run.add_argument("--artefacts", type=Path, required=True, metavar="DIR", help="folder of the artefact store")
    run.add_argument("--artefact", required=True, metavar="HEX", help="digest of the engine")
    run.add_argument("--contexts", type=int, default=1, metavar="N", help="run all again in N threads at once")
    run.set_defaults(act=_run)
    reference = commands.add_parser("reference", help="run a source model, untouched, on the cases of a file")
    reference.add_argument("--onnx", type=Path, required=True, metavar="PATH", help="source model")
    reference.add_argument("--sha256", required=True, metavar="HEX", help="what it must have")
    reference.set_defaults(act=_reference)
    for trial in (run, reference):
        trial.add_argument("--inputs", type=Path, required=True, metavar="PATH", help="cases to run")
        trial.add_argument("--outputs", type=Path, required=True, metavar="PATH", help="where their outputs go")
    inspect = commands.add_parser("inspect", help="say what an artefact is, of what, and where it runs")
    inspect.add_argument("--artefacts", type=Path, required=True, metavar="DIR", help="folder of the artefact store")
    inspect.add_argument("digest", help="digest of the engine")
    inspect.set_defaults(act=_inspect)
    arguments = parser.parse_args()
    answers = _our_stdout()
    try:
        line: bytes = arguments.act(arguments, answers)
    except (EngineError, ValueError) as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing was kept\n")
        return 130
    _write(answers, line + b"\n")
    return 0


def _build(arguments: argparse.Namespace, answers: int) -> bytes:
    progress: Progress = unheard
    if arguments.progress:
        progress = Sparing(lambda step, done: _write(answers, line_from_progress(step, done)))
    return json_from_manifest(ArtefactStore(arguments.artefacts).build(_spec_from(arguments), progress))


def _check(arguments: argparse.Namespace, _: int) -> bytes:
    spec = _spec_from(arguments)
    return orjson.dumps(vendor_of(spec.runtime).check(spec))


def _run(given: argparse.Namespace, _: int) -> bytes:
    return try_engine(given.artefacts, given.artefact, given.inputs, given.outputs, given.contexts)


def _reference(given: argparse.Namespace, _: int) -> bytes:
    return try_source(given.onnx, given.sha256, given.inputs, given.outputs)


def _inspect(arguments: argparse.Namespace, _: int) -> bytes:
    return _described(ArtefactStore(arguments.artefacts).inspect(arguments.digest))


def _described(inspection: Inspection) -> bytes:
    document = {"inspection": inspection, "runs_on": inspection.runs_on, "why_not_here": None}
    try:
        document["why_not_here"] = why_foreign(inspection.manifest)
    except EngineError as exc:  # the runtime is not installed here; all else can be told
        document["why_not_here"] = str(exc)
    return orjson.dumps(document)


def _add_options(command: argparse.ArgumentParser) -> None:
    """All that an EngineSpec holds."""
    command.add_argument("--onnx", type=Path, required=True, metavar="PATH", help="source model")
    command.add_argument("--runtime", type=Runtime, default=Runtime.ONNXRUNTIME, help="what executes it")
    command.add_argument("--threads", type=int, default=1, metavar="N", help="threads for one inference (default 1)")
    command.add_argument("--precision", type=Precision, default=Precision.FP32, help="numbers it computes with")
    command.add_argument("--profile", action="append", default=[], metavar="NAME=MIN,OPT,MAX",
        help="shapes of one input to build for, as in input_ids=1x8,8x128,32x512; may be repeated")  # fmt: skip
    command.add_argument("--calibration", type=Path, metavar="PATH", help="samples (.npz) to find 8-bit ranges with")
    command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
        help="a setting of the runtime, as in workspace=4GiB; may be repeated")  # fmt: skip


def _spec_from(arguments: argparse.Namespace) -> EngineSpec:
    return EngineSpec(
        onnx=str(arguments.onnx.resolve()),
        runtime=arguments.runtime,
        threads=arguments.threads,
        precision=arguments.precision,
        profiles=profiles_from_texts(arguments.profile),
        calibration=None if arguments.calibration is None else str(arguments.calibration.resolve()),
        settings=settings_from_texts(arguments.runtime, arguments.set),
    )


def _our_stdout() -> int:
    """A descriptor of stdout that only we know: what native code prints goes to stderr, not between our lines."""
    ours = os.dup(1)
    os.dup2(2, 1)
    return ours


def _write(descriptor: int, line: bytes) -> None:
    """All of it; a pipe may take less at once."""
    with open(descriptor, "wb", buffering=0, closefd=False) as stream:
        while line:
            line = line[stream.write(line) :]


if __name__ == "__main__":
    sys.exit(main())
