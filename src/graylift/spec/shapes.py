"""Every field of a release file: the whole of what may be written, and what will be later.

`docs/release-file.md` describes exactly these fields; a test holds the two together. Read by `release`, `stages` and
`judge`, which give the fields their meaning.
"""

from __future__ import annotations

from graylift.spec.fields import Shape

ROOT = Shape(
    "the release file",
    {
        "apiVersion": "graylift.dev/v1",
        "kind": "Release",
        "metadata": "{name: the service}",
        "spec": "what is released and how",
    },
)

METADATA = Shape("metadata", {"name": "the name of the service, as in file-type"})

SPEC = Shape(
    "spec",
    {
        "protocol": "what clients of the service speak: open-inference",
        "stable": "the revision in production: {revision: v1, model: {onnx: models/v1.onnx}}",
        "candidate": "the revision to release: {revision: v2, model: {onnx: models/v2.onnx}}",
        "routing": "how requests reach the two revisions",
        "stages": "the steps from the first percent to all of the traffic",
        "judge": "what is measured and how much worse the candidate may be",
        "onFailure": "rollback or pause",
    },
    later={"checks": "delete it: the checks that work already always run, without settings"},
)

REVISION = Shape(
    "spec.stable, spec.candidate",
    {
        "revision": "what people call this version, as in v2",
        "model": "{onnx: models/v2.onnx}, or {endpoint: http://host:port} of a server that runs already",
        "readyWithin": "how long its server may take to get ready, as in 60s",
    },
)

MODEL = Shape(
    "spec.stable.model, spec.candidate.model",
    {
        "onnx": "the path of the model, from the folder of this file",
        "endpoint": "http://host:port of a server that runs already",
        "runtime": "what executes the model: onnxruntime",
        "threads": "threads for one inference",
        "inputs": "{served name: the model's own name}, where they differ",
        "outputs": "{served name: the model's own name}, where they differ",
    },
    later={
        "precision": "delete it: the model runs in the precision it is stored in",
        "profiles": "delete it: every shape the model allows is served",
    },
)

ROUTING = Shape(
    "spec.routing",
    {
        "sticky": "{header: x-user-id}: equal values stay on one revision",
        "match": "rules that send labelled requests to one revision, whatever the weights",
        "timeout": "the longest a request may take, as in 30s",
    },
    later={"limits": "delete it, and limit requests in front of Graylift until then"},
)

STICKY = Shape("spec.routing.sticky", {"header": "the name of a request header, as in x-user-id"})

MATCH = Shape(
    "spec.routing.match[]",
    {
        "header": "the name of a request header, as in x-tenant",
        "exact": "the whole value the header must have",
        "to": "candidate or stable",
    },
)

STAGE = Shape(
    "spec.stages[]",
    {
        "weight": "the candidate's share of the traffic in percent, as in 1",
        "observe": "how long the stage is observed at least, as in 10m",
        "minRequests": "candidate requests it takes at least",
        "approval": "required, if a person has to let it go on",
        "promoteIfWithin": "looser promote margins for this stage: {errors: 5pp}",
        "maxDuration": "how long the stage may last without being proven good, as in 6h",
        "onInconclusive": "hold, pause or rollback: what follows then",
        "watch": "how long the old stable stays warm after the last stage began, as in 30m",
    },
    later={"shadow": "delete this stage, and begin with a small weight: {weight: 1, observe: 10m}"},
)

JUDGE = Shape(
    "spec.judge",
    {
        "falseRollback": "bound on rolling back a good candidate, as in 1%",
        "falsePromotion": "bound on passing a bad candidate in a stage, for each metric, as in 5%",
        "metrics": "what is measured, each with two margins",
    },
)

METRIC = Shape(
    "spec.judge.metrics[]",
    {
        "name": "errors or latency",
        "quantile": "which quantile of the latency, as in 0.99",
        "rollbackIfWorse": "how much worse than stable is too much. Both margins are needed: "
        "with one alone, a candidate that sits at it could never be decided",
        "promoteIfWithin": "how close to stable is good enough. Both margins are needed: "
        "with one alone, a candidate that sits at it could never be decided",
    },
)

SHAPES = (ROOT, METADATA, SPEC, REVISION, MODEL, ROUTING, STICKY, MATCH, STAGE, JUDGE, METRIC)
