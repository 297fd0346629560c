"""2x + 1 behind PyTriton's bundled Triton, with its dynamic batcher. `python pytriton_app.py PORT`.

Run by `benchmarks/server.py` with a Python that has nvidia-pytriton.
"""

import sys

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


@batch
def infer(x):
    return {"y": x * 2 + 1}


port = int(sys.argv[1])
config = TritonConfig(http_port=port, grpc_port=port + 1, metrics_port=port + 2, log_verbose=0)
with Triton(config=config) as triton:
    triton.bind(
        model_name="m",
        infer_func=infer,
        inputs=[Tensor(name="x", dtype=np.float32, shape=(16,))],
        outputs=[Tensor(name="y", dtype=np.float32, shape=(16,))],
        config=ModelConfig(max_batch_size=64, batcher=DynamicBatcher(max_queue_delay_microseconds=500)),
        strict=False,
    )
    triton.serve()
