"""`python -m graylift.engine build`: one build in a process of its own, so that a crash of native code ends only that.

Prints the manifest as one line of JSON. Exit 2 with one sentence on stderr if the engine cannot be built.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from graylift.domain.engine import EngineSpec, Precision, Runtime
from graylift.engine.artefacts import ArtefactStore, json_from_manifest
from graylift.errors import EngineError
from graylift.spec.profiles import profiles_from_texts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m graylift.engine", description=__doc__)
    build = parser.add_subparsers(required=True).add_parser("build", help="build an engine, or find it if it was built")
    build.add_argument("--artefacts", type=Path, required=True, metavar="DIR", help="folder of the artefact store")
    build.add_argument("--onnx", type=Path, required=True, metavar="PATH", help="source model")
    build.add_argument("--runtime", type=Runtime, default=Runtime.ONNXRUNTIME, help="what executes it")
    build.add_argument("--threads", type=int, default=1, metavar="N", help="threads for one inference (default 1)")
    build.add_argument("--precision", type=Precision, default=Precision.FP32, help="numbers it computes with")
    build.add_argument("--profile", action="append", default=[], metavar="NAME=MIN,OPT,MAX",
        help="shapes of one input to build for, as in input_ids=1x8,8x128,32x512; may be repeated")  # fmt: skip
    build.add_argument("--calibration", type=Path, metavar="PATH", help="samples (.npz) to find 8-bit ranges with")
    arguments = parser.parse_args()
    try:
        spec = EngineSpec(
            onnx=str(arguments.onnx.resolve()),
            runtime=arguments.runtime,
            threads=arguments.threads,
            precision=arguments.precision,
            profiles=profiles_from_texts(arguments.profile),
            calibration=None if arguments.calibration is None else str(arguments.calibration.resolve()),
        )
        manifest = ArtefactStore(arguments.artefacts).build(spec)
    except (EngineError, ValueError) as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    sys.stdout.buffer.write(json_from_manifest(manifest) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
