"""The model server: one process, one revision, Open Inference Protocol v2 over HTTP.

`python -m graylift.serve` starts it. It knows an artefact store and the names it serves under; releases, weights and
gateways are not its business. Reading order: `server` (the life of the process), `app` (a request), `line` (its turn).
"""
