"""Every field of a release file: the whole of what may be written, and what will be later.

`docs/release-file.md` describes exactly these fields; a test holds the two together. Read by `release`, `model`,
`checks`, `stages` and `judge`, which give the fields their meaning.
"""

from __future__ import annotations

from graylift.domain.engine import Runtime
from graylift.spec.fields import Shape

LANGUAGE_RUNTIMES = {runtime.value: runtime for runtime in Runtime if runtime.runs_language_models}
RUNTIMES = {
    runtime.value: runtime for runtime in Runtime if runtime is not Runtime.PYTORCH and not runtime.runs_language_models
}
"""That a release may have. PyTorch's programs are compared with, and have no source to be checked against."""

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
        "protocol": "what clients of the service speak: open-inference or openai",
        "stable": "the revision in production: {revision: v1, model: {onnx: models/v1.onnx}}",
        "candidate": "the revision to release: {revision: v2, model: {onnx: models/v2.onnx}}",
        "checks": "what must hold before any user sees the candidate: {parity: {samples: samples.npz}}",
        "routing": "how requests reach the two revisions",
        "stages": "the steps from the first percent to all of the traffic",
        "judge": "what is measured and how much worse the candidate may be",
        "onFailure": "rollback or pause",
        "notify": "who is told: [{slack: {env: GRAYLIFT_SECRET_SLACK}, on: [PROMOTED, ROLLING_BACK]}]",
    },
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
        "gguf": "the path of a language model, from the folder of this file",
        "endpoint": "http://host:port of a server that runs already",
        "runtime": f"what executes the model: {', '.join((*RUNTIMES, *LANGUAGE_RUNTIMES))}",
        "threads": "threads for one inference",
        "precision": "the numbers it computes with, as in fp32, or how a language model is packed, as in q8_0",
        "profiles": "the shapes it is built for: [{input_ids: {min: [1, 8], opt: [8, 128], max: [32, 512]}}]",
        "calibration": "the path of an .npz with real inputs, for int8 alone",
        "settings": "what else may be set of the runtime, as in {workspace: 4GiB}",
        "contexts": "inferences at once, each with its threads, or auto",
        "maxBatchSize": "rows that may share one inference, as in 8, or auto",
        "maxQueueDelay": "how long a request may wait for others to share its run, as in 2ms",
        "maxQueue": "requests that may wait for their turn, as in 64; the next one is turned away",
        "inputs": "{served name: the model's own name}, where they differ",
        "outputs": "{served name: the model's own name}, where they differ",
        "chatTemplate": "the path of a Jinja template in place of the language model's own",
        "contextLength": "tokens of prompt and answer together, as in 4096",
        "maxStreams": "answers that are written at once, as in 8",
    },
)

PROFILE = Shape(
    "spec.stable.model.profiles[], spec.candidate.model.profiles[]",
    {
        "min": "the smallest shape, as in [1, 8]",
        "opt": "the shape to be fastest at, as in [8, 128]",
        "max": "the largest shape, as in [32, 512]",
    },
)

_SKIP = "why this check is not run"

PARITY = Shape(
    "spec.checks.parity",
    {
        "samples": "the path of an .npz with real inputs, under the names that clients send",
        "maxRelativeError": "of any element, relative to the largest one of its output and sample, as in 0.01",
        "minTop1Agreement": "the share of samples with the same largest element as the source, as in 0.99",
        "minStableAgreement": "the same share against stable, as in 0.9",
        "skip": _SKIP,
    },
)

PERFORMANCE = Shape(
    "spec.checks.performance",
    {
        "rate": "requests to send, as in 50/s",
        "duration": "how long each side is measured, as in 30s",
        "maxLatencyRatio": "candidate / stable at most, by quantile: {p50: 1.10, p99: 1.20}",
        "minThroughputRatio": "candidate / stable at saturation at least, as in 0.95",
        "skip": _SKIP,
    },
)

COLD_START = Shape(
    "spec.checks.coldStart",
    {"maxFirstRequestRatio": "first request / median of the next ones at most, as in 3", "skip": _SKIP},
)

BOUNDARY = Shape("spec.checks.boundary", {"skip": _SKIP})

CAPACITY = Shape(
    "spec.checks.capacity",
    {"minFreeMemory": "the share of memory that stays free with both servers warm, as in 20%", "skip": _SKIP},
)

CONCURRENCY = Shape("spec.checks.concurrency", {"contexts": "how many inferences run at once, as in 4", "skip": _SKIP})

CHECKS = Shape(
    "spec.checks",
    {
        "parity": "the engine computes what its source computes: {samples: samples.npz, maxRelativeError: 0.01}",
        "performance": "the candidate is as fast as stable: {rate: 50/s, duration: 30s, maxLatencyRatio: {p50: 1.10}}",
        "coldStart": "the first request is no surprise: {maxFirstRequestRatio: 3}",
        "boundary": "odd requests get an answer or a clear refusal: {}",
        "capacity": "both servers fit into the machine: {minFreeMemory: 20%}",
        "concurrency": "several inferences at once give what one gives: {contexts: 4}",
    },
)

ROUTING = Shape(
    "spec.routing",
    {
        "sticky": "{header: x-user-id}: equal values stay on one revision",
        "match": "rules that send labelled requests to one revision, whatever the weights",
        "timeout": "the longest a request may take, as in 30s",
        "limits": "what clients may ask: [{key: {header: x-api-key}, requests: 100/s}]",
        "whenLimiterAway": "allow or deny: what happens to limited requests while nobody can count them",
    },
)

STICKY = Shape(
    "spec.routing.sticky",
    {
        "header": "the name of a request header, as in x-user-id",
        "cookie": "the name of a cookie, which the gateway sets, as in visitor",
        "body": "user or conversation: what of an openai request's body tells whose it is",
    },
)

MATCH = Shape(
    "spec.routing.match[]",
    {
        "header": "the name of a request header, as in x-tenant",
        "exact": "the whole value the header must have",
        "to": "candidate or stable",
    },
)

LIMIT = Shape(
    "spec.routing.limits[]",
    {
        "key": "{header: x-api-key}: each value of this header has a budget of its own",
        "label": "{header: x-tenant, exact: batch}: only requests with this label",
        "path": "only requests to this path and those below it, as in /v1/embeddings",
        "requests": "how many, as in 100/s",
        "tokens": "how many of prompts and answers together, as in 60000/m",
        "concurrent": "how many at once, as in 20",
        "answerTokens": "reserved for an answer whose request sets no max_tokens, as in 1024",
    },
)

LIMIT_KEY = Shape("spec.routing.limits[].key", {"header": "the name of a request header, as in x-api-key"})

LIMIT_LABEL = Shape(
    "spec.routing.limits[].label",
    {"header": "the name of a request header, as in x-tenant", "exact": "the whole value the header must have"},
)

STAGE = Shape(
    "spec.stages[]",
    {
        "shadow": "the share of the requests that the candidate answers as well, without any user seeing it, as in 10%",
        "methods": "which methods of HTTP are shadowed, as in [POST]",
        "match": "which headers a request must have to be shadowed: [{header: x-dry-run, exact: yes}]",
        "weight": "the candidate's share of the traffic in percent, as in 1",
        "observe": "how long the stage is observed at least, as in 10m",
        "minRequests": "candidate requests it takes at least",
        "approval": "required, if a person has to let it go on",
        "promoteIfWithin": "looser promote margins for this stage: {errors: 5pp}",
        "maxDuration": "how long the stage may last without being proven good, as in 6h",
        "onInconclusive": "hold, pause or rollback: what follows then",
        "confirm": "gates that are asked before it begins: [{name: change-window, url: http://10.0.0.9/gate}]",
        "watch": "how long the old stable stays warm after the last stage began, as in 30m",
    },
)

STAGE_MATCH = Shape(
    "spec.stages[].match[]",
    {"header": "the name of a request header, as in x-dry-run", "exact": "the whole value the header must have"},
)

JUDGE = Shape(
    "spec.judge",
    {
        "falseRollback": "bound on rolling back a good candidate, as in 1%",
        "falsePromotion": "bound on passing a bad candidate in a stage, for each metric, as in 5%",
        "metrics": "what is measured, each with two margins",
        "shadow": "how the pairs of answers of a shadow stage are compared and judged",
    },
)

SHADOW = Shape(
    "spec.judge.shadow",
    {
        "errors": "how much more the candidate may fail than stable at the same requests",
        "latency": "how many times as long as stable half of its answers may take",
        "agreement": "how many of its answers must agree: {rollbackIfBelow: 95%, promoteIfAbove: 90%}",
        "maxRelativeError": "numbers closer than this agree, relative to the largest of their output, as in 0.01",
        "maxTextDrift": "the largest share of words that may differ in texts that agree, as in 0.2",
        "keepExamples": "none, hashes or text: what is kept of the pairs that lie furthest apart",
    },
)

SHADOW_MARGINS = Shape(
    "spec.judge.shadow.errors, spec.judge.shadow.latency",
    {
        "rollbackIfWorse": "how much worse than stable is too much",
        "promoteIfWithin": "how close to stable is good enough",
    },
)

AGREEMENT = Shape(
    "spec.judge.shadow.agreement",
    {
        "rollbackIfBelow": "the share of pairs that is too little, as in 95%",
        "promoteIfAbove": "the share of pairs that is enough, as in 90%",
    },
)

METRIC = Shape(
    "spec.judge.metrics[]",
    {
        "name": "errors, latency, ttft, tpot, or the name of a score",
        "quantile": "which quantile of the time, as in 0.99",
        "rollbackIfWorse": "how much worse than stable is too much. Both margins are needed: "
        "with one alone, a candidate that sits at it could never be decided",
        "promoteIfWithin": "how close to stable is good enough. Both margins are needed: "
        "with one alone, a candidate that sits at it could never be decided",
        "prometheus": "where it is read, under a name of your own: {url: http://127.0.0.1:9090, bad: ..., total: ...}",
        "otlp": "what the servers push by OTLP, under a name of your own: {histogram: ..., above: 0.5}",
    },
)

PROMETHEUS = Shape(
    "spec.judge.metrics[].prometheus",
    {
        "url": "where it is, as in http://127.0.0.1:9090",
        "histogram": "a histogram, without `_bucket`, as in vllm:request_queue_time_seconds",
        "above": "one of its bucket bounds: values above it are bad events",
        "bad": "instead of a histogram, a counter of bad events",
        "total": "and the counter of all events",
        "labels": 'what selects its series: {version: "{revision}"}; {revision} becomes v1 and v2',
        "every": "the interval in which both revisions are compared, several scrapes long, as in 60s",
    },
)

OTLP = Shape(
    "spec.judge.metrics[].otlp",
    {
        "histogram": "the instrument's name, as in gen_ai.server.time_to_first_token",
        "above": "one of its bucket bounds: values above it are bad events",
        "attributes": "what a data point must have: {gen_ai.request.model: tiny}",
        "every": "the interval in which both revisions are compared, several exports long, as in 3m",
    },
)

GATE = Shape(
    "spec.stages[].confirm[]",
    {
        "name": "what people call it, as in change-window",
        "url": "where it is asked: http(s)://host:port/path, or {env: GRAYLIFT_SECRET_...}",
        "timeout": "how long it may take to answer, as in 10s",
        "signingKey": "{env: GRAYLIFT_SECRET_...}: the key that questions are signed with",
    },
)

NOTIFY = Shape(
    "spec.notify[]",
    {
        "webhook": "where to post events: http(s)://host:port/path, or {env: GRAYLIFT_SECRET_...}",
        "slack": "{env: GRAYLIFT_SECRET_...}: the variable with the address of an incoming webhook",
        "email": "{to: [ops@example.com], from: graylift@example.com, server: smtp.example.com:587}",
        "signingKey": "{env: GRAYLIFT_SECRET_...}: the key that a webhook's messages are signed with",
        "on": "which events, as in [PROMOTED, ROLLING_BACK]",
    },
)

EMAIL = Shape(
    "spec.notify[].email",
    {
        "to": "to whom, as in [ops@example.com]",
        "from": "from whom, as in graylift@example.com",
        "server": "host:port of an SMTP server, as in smtp.example.com:587",
        "user": "whom to log in as",
        "password": "{env: GRAYLIFT_SECRET_...}: the variable with the password",
    },
)

SECRET = Shape(
    "spec.notify[].slack, signingKey, password",
    {"env": "the name of an environment variable of the controller, as in GRAYLIFT_SECRET_SLACK"},
)

SHAPES = (
    *(ROOT, METADATA, SPEC, REVISION, MODEL, PROFILE),
    *(CHECKS, PARITY, PERFORMANCE, COLD_START, BOUNDARY, CAPACITY, CONCURRENCY),
    *(ROUTING, STICKY, MATCH, LIMIT, LIMIT_KEY, LIMIT_LABEL, STAGE, STAGE_MATCH),
    *(JUDGE, METRIC, PROMETHEUS, OTLP, SHADOW, SHADOW_MARGINS, AGREEMENT),
    *(GATE, NOTIFY, EMAIL, SECRET),
)
