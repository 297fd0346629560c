"""TensorRT-RTX: the only module that imports its bindings. Reached through `vendors`, never directly.

It builds without a GPU, by default for every NVIDIA RTX GPU from Ampere on (`computeCapability` narrows that), and
compiles for the GPU at hand when an engine is loaded. It keeps no timing cache, for it times nothing at the build.
"""

# The bindings ship no types.
# pyright: reportMissingTypeStubs=false, reportMissingImports=false, reportUnknownVariableType=false

from __future__ import annotations

import tensorrt_rtx_bindings

from graylift.engine.tensorrt_vendor import TensorRt

VENDOR = TensorRt(tensorrt_rtx_bindings, "TensorRT-RTX", portable=True)
