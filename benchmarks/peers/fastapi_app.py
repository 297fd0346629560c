"""What a person writes first: a FastAPI path that validates a body and runs the model on it, one request at a time.

`python fastapi_app.py PORT [MODEL.onnx]`; without a model it is 2x + 1. Run by `benchmarks/server.py`.
"""

import sys
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Tensor(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    data: list[float]


class Request(BaseModel):
    inputs: list[Tensor]


DTYPES = {"FP32": np.float32, "INT64": np.int64}
app = FastAPI()
session: Any = None


@app.post("/v2/models/m/infer")
def infer(request: Request) -> dict[str, Any]:
    tensors = {t.name: np.array(t.data, DTYPES[t.datatype]).reshape(t.shape) for t in request.inputs}
    output = tensors["x"] * 2 + 1 if session is None else session.run(None, tensors)[0]
    return {"outputs": [{"name": "y", "shape": output.shape, "data": output.ravel().tolist()}]}


if __name__ == "__main__":
    if len(sys.argv) > 2:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(sys.argv[2], options)
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
