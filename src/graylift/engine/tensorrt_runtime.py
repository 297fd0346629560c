"""TensorRT (versions 10 and 11): the only module that imports `tensorrt`. Reached through `vendors`, never directly.

It builds on the GPU that shall run the engine, so nothing of it runs where there is none; the API is the one that
TensorRT-RTX has, which is tested.
"""

# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportMissingTypeStubs=false

from __future__ import annotations

import tensorrt

from graylift.engine.tensorrt_vendor import TensorRt

VENDOR = TensorRt(tensorrt, "TensorRT", portable=False)
