"""2x + 1 as a service of BentoML with its adaptive batching. Started by `benchmarks/server.py` with a Python that has
bentoml, as `bentoml serve bentoml_service:Twice`."""

import bentoml
import numpy as np


@bentoml.service(workers=1)
class Twice:
    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)
    def infer(self, x: np.ndarray) -> np.ndarray:
        return x * 2 + 1
