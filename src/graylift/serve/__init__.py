"""The model server: one process, one revision, Open Inference Protocol v2 over HTTP and gRPC.

`python -m graylift.serve` starts it, as `graylift serve` does in the end. It knows an artefact store and the names it
serves under; releases, weights and gateways are not its business. Reading order: `server` (the life of the process),
`starting` (what it measures and chooses), `app` and `grpc_front` (a request's bytes), `inference` (the request),
`batcher` (its turn). A language model speaks OpenAI's API instead: `writing`, with `front` for what the two have in
common.
"""
