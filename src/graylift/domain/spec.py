"""The release file as values: what a person asks for. Written by `spec/`, read by everybody, changed by nobody."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal, assert_never

from graylift.domain.engine import Packing, Precision, Profile, Runtime
from graylift.domain.limits import Limits
from graylift.domain.notices import Gate, Receiver
from graylift.domain.sources import MetricOrigin
from graylift.domain.weights import TOTAL, Role, Weights


class ServingProtocol(Enum):
    """What clients of the service speak."""

    OPEN_INFERENCE = "open-inference"
    OPENAI = "openai"
    """What OpenAI's clients ask under /v1: chat completions, completions, embeddings, models."""

    @property
    def ready_path(self) -> str:
        """What every server of this protocol answers to a GET once it is ready."""
        match self:
            case ServingProtocol.OPEN_INFERENCE:
                return "/v2/health/ready"
            case ServingProtocol.OPENAI:
                return "/v1/models"

    @property
    def ready_statuses(self) -> range:
        """With which of these it does so."""
        match self:
            case ServingProtocol.OPEN_INFERENCE:
                return range(200, 201)
            case ServingProtocol.OPENAI:
                # Many servers tell their models only to whoever has a key; while they load, all answer 503.
                return range(200, 500)


@dataclass(frozen=True, slots=True)
class TensorName:
    """A tensor that this revision's model calls `own` and that clients of the service call `served`."""

    served: str
    own: str


Auto = Literal["auto"]
AUTO: Auto = "auto"


@dataclass(frozen=True, slots=True)
class Serving:
    """How a model server runs its engine.

    contexts:  inferences at once; AUTO: as many as pay on its machine, which the server measures at its start
    max_batch: rows that may share one inference; 1 runs each request alone. The server makes sure first that rows
               do not see each other, and runs each alone if they do. AUTO: as many as pay, measured likewise
    max_queue_delay_s: how long a request may wait for company while a context is free
    max_queue: requests that may wait for their turn; the next one is turned away with 503
    """

    contexts: int | Auto = 1
    max_batch: int | Auto = 1
    max_queue_delay_s: float = 0.0
    max_queue: int = 256


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A model that Graylift builds into an engine and serves itself.

    onnx:    absolute path of the file; external data lies beside it
    threads: threads for one inference
    precision, profiles, calibration: see `EngineSpec`
    inputs, outputs: renamings where the model's own tensor names differ from the served ones
    settings: see `EngineSpec`
    """

    onnx: str
    runtime: Runtime = Runtime.ONNXRUNTIME
    threads: int = 1
    precision: Precision = Precision.FP32
    profiles: tuple[Profile, ...] = ()
    calibration: str | None = None
    inputs: tuple[TensorName, ...] = ()
    outputs: tuple[TensorName, ...] = ()
    serving: Serving = Serving()
    settings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class GgufModel:
    """A language model that Graylift packs into an engine and serves itself.

    gguf, packing, chat_template: see `GgufSpec`
    threads: of one step, which all streams share
    context_length: tokens of prompt and answer together at most; None: what the model was made for
    max_streams:    answers that are written at once; the next ones wait
    max_queue:      as in `Serving`
    """

    gguf: str
    runtime: Runtime = Runtime.OPENVINO_GENAI
    threads: int = 1
    packing: Packing = Packing.F16
    chat_template: str | None = None
    context_length: int | None = None
    max_streams: int = 8
    max_queue: int = 256


@dataclass(frozen=True, slots=True)
class EndpointModel:
    """A server that already runs, somewhere. `url` is http://host:port, without a path."""

    url: str


@dataclass(frozen=True, slots=True)
class RevisionSpec:
    """One side of a release as written: its name, its model, and how long its server may take to get ready."""

    name: str
    model: OnnxModel | GgufModel | EndpointModel
    ready_within_s: float = 60.0


class MarginKind(Enum):
    RATIO = "x"
    """candidate / stable, as in 1.10x"""
    POINTS = "pp"
    """candidate - stable in percentage points, as in 0.5pp"""
    SCORE = "score"
    """candidate - stable of a score from 0 to 1, as in -0.01: the sign says which way is worse"""


@dataclass(frozen=True, slots=True)
class Margin:
    """How much worse than stable. RATIO: value > 1 (1.10x is 1.10). POINTS: value > 0, as a share (0.5pp is 0.005).
    SCORE: -1 < value < 1 and not 0; below 0 where a lower score is worse."""

    kind: MarginKind
    value: float

    @property
    def room(self) -> float:
        """Of two margins of one check, the one with more room is the looser."""
        return abs(self.value)

    def __str__(self) -> str:
        match self.kind:
            case MarginKind.RATIO:
                return f"{self.value:.2f}x" if round(self.value, 2) == self.value else f"{self.value:g}x"
            case MarginKind.POINTS:
                return f"{self.value * 100:g}pp"
            case MarginKind.SCORE:
                return f"{self.value:+g}"
            case _:
                assert_never(self.kind)


class Metric(Enum):
    """What is judged on traffic. ERRORS: share of assigned requests that failed. LATENCY: seconds as clients see it.
    TTFT, TPOT: of streamed answers, seconds to the first token and for each token after it.
    SCORE: how good the answers were, from 0 to 1, by a measure of the user's.
    SHARE: of events that somebody else counts, the share of bad ones."""

    ERRORS = "errors"
    LATENCY = "latency"
    TTFT = "ttft"
    TPOT = "tpot"
    SCORE = "score"
    SHARE = "share"


@dataclass(frozen=True, slots=True)
class Check:
    """One rule on traffic, with its two margins; between them neither FAIL nor PASS is claimed.

    quantile: in (0, 1) for LATENCY, TTFT and TPOT; None for the others
    score:    the measure's name, for SCORE; None for the others
    share:    the user's name for it, for SHARE; None for the others
    origin:   where a SHARE is read; None for the others
    """

    metric: Metric
    quantile: float | None
    rollback_if_worse: Margin
    promote_if_within: Margin
    score: str | None = None
    share: str | None = None
    origin: MetricOrigin | None = None

    @property
    def name(self) -> str:
        """How people call it, unique in a release: `errors`, `latency p99`, `ttft p99.9`, a name of the user's."""
        if (own := self.score or self.share) is not None:
            return own
        if self.quantile is None:
            return self.metric.value
        return f"{self.metric.value} p{self.quantile * 100:.10g}"


class KeepExamples(Enum):
    """What is kept of the pairs that lie furthest apart. NONE: nothing. HASHES: the request's id and what each side's
    answer hashes to, enough to find it again elsewhere. TEXT: the request and both answers, as they were."""

    NONE = "none"
    HASHES = "hashes"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What still agrees: numbers that are closer than this, relative to the largest of their output; texts of which no
    larger share of words differs."""

    max_relative_error: float = 0.01
    max_text_drift: float = 0.0


@dataclass(frozen=True, slots=True)
class AgreementMargins:
    """How many of the candidate's answers must agree with stable's, as shares of the pairs compared; between the two
    neither is claimed. FAIL: shown to be fewer than `rollback_if_below`. PASS: more than `promote_if_above`."""

    rollback_if_below: float
    promote_if_above: float


class ShadowCheck(Enum):
    """What is judged on pairs of answers. The values are names beside those of `Check`."""

    ERRORS = "shadow errors"
    LATENCY = "shadow latency"
    AGREEMENT = "shadow agreement"


@dataclass(frozen=True, slots=True)
class ShadowJudge:
    """How the pairs of a shadow stage are judged, and what is kept of them.

    errors_*:  by how many points of a percent more of the pairs the candidate may fail in than stable does
    latency_*: how many times as long as stable's answer to the same request half of the candidate's may take
    agreement: None: how many agree is told, not judged
    """

    errors_rollback: Margin = Margin(MarginKind.POINTS, 0.01)
    errors_promote: Margin = Margin(MarginKind.POINTS, 0.02)
    latency_rollback: Margin = Margin(MarginKind.RATIO, 1.5)
    latency_promote: Margin = Margin(MarginKind.RATIO, 2.0)
    agreement: AgreementMargins | None = None
    tolerance: Tolerance = Tolerance()
    keep_examples: KeepExamples = KeepExamples.NONE

    @property
    def checks(self) -> tuple[ShadowCheck, ...]:
        """What is judged."""
        always = (ShadowCheck.ERRORS, ShadowCheck.LATENCY)
        return always if self.agreement is None else (*always, ShadowCheck.AGREEMENT)


@dataclass(frozen=True, slots=True)
class JudgeSpec:
    """How traffic is judged.

    false_rollback:  bound on the probability that a candidate within the rollback margins is ever rolled back,
                     over the whole release, all checks and stages, at any number of looks
    false_promotion: bound, per check and stage, on passing a candidate that is at or beyond the promote margin
    shadow: of shadow stages; None where there are none
    """

    checks: tuple[Check, ...]
    false_rollback: float = 0.01
    false_promotion: float = 0.05
    shadow: ShadowJudge | None = None


@dataclass(frozen=True, slots=True)
class PromoteMargin:
    """A stage's own promote margin for the check of that name (looser at small weights, where data is thin)."""

    check: str
    margin: Margin


class OnInconclusive(Enum):
    """What follows where a stage has lasted its longest and is not proven good: neither evidence nor a verdict."""

    HOLD = "hold"
    PAUSE = "pause"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class HeaderRule:
    """Requests whose `header` is exactly `value`."""

    header: str
    value: str


@dataclass(frozen=True, slots=True)
class ShadowSpec:
    """Which requests the candidate answers as well, without any user getting its answer.

    share:   of those that fit, drawn request by request
    methods: of HTTP; what else a method of a service may do, only its owner knows
    match:   all of these must hold
    """

    share: Weights
    methods: tuple[str, ...] = ("POST",)
    match: tuple[HeaderRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the release.

    observe_s:    how long it is observed at least; for the last stage (all traffic) this is the watch,
                  during which the old stable stays warm
    min_requests: candidate requests it takes at least; of a shadow stage, pairs of answers
    shadow:       of a shadow stage; its weight is 0
    max_duration_s: how long it may last until it is proven good, None: for ever; then `on_inconclusive`
    confirm:      asked before it begins; all must say go
    """

    weights: Weights
    observe_s: float
    min_requests: int = 0
    approval_required: bool = False
    promote_if_within: tuple[PromoteMargin, ...] = ()
    max_duration_s: float | None = None
    on_inconclusive: OnInconclusive = OnInconclusive.HOLD
    shadow: ShadowSpec | None = None
    confirm: tuple[Gate, ...] = ()

    def __str__(self) -> str:
        """What the candidate gets, as people say it: `20 %`, `shadow 10 %`."""
        return str(self.weights) if self.shadow is None else f"shadow {self.shadow.share}"

    @property
    def is_watch(self) -> bool:
        """Is this the last stage, where the candidate has all of the traffic?"""
        return self.weights.candidate == TOTAL


@dataclass(frozen=True, slots=True)
class LabelRule:
    """Requests whose `header` is exactly `value` go to `to`, whatever the weights. Not judged: they are no sample."""

    header: str
    value: str
    to: Role


class StickyBy(Enum):
    """What of a request tells whose it is. CONVERSATION: its first message, instructions aside."""

    HEADER = "header"
    COOKIE = "cookie"
    USER = "user"
    CONVERSATION = "conversation"


@dataclass(frozen=True, slots=True)
class Sticky:
    """Requests that are equal in this stay on one arm. name: of the header or the cookie, None for what has none."""

    by: StickyBy
    name: str | None = None

    @property
    def is_in_body(self) -> bool:
        return self.by in (StickyBy.USER, StickyBy.CONVERSATION)

    def __str__(self) -> str:
        return self.by.value if self.name is None else f"{self.by.value} {self.name}"


@dataclass(frozen=True, slots=True)
class RoutingSpec:
    """How requests reach an arm.

    sticky:        what keeps requests together on one arm; None draws each anew
    timeout_s:     the longest a request may take, its retry included; with OPENAI, where an answer may go on for as
                   long as tokens come, the longest a server may be silent
    limits:        what its clients may ask of it; None: all they like
    """

    sticky: Sticky | None = None
    match: tuple[LabelRule, ...] = ()
    timeout_s: float = 30.0
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class Skip:
    """A pre-release check that somebody chose not to run, and why; the report shows it."""

    reason: str


@dataclass(frozen=True, slots=True)
class ParityCheck:
    """Does the engine compute what its source model computes?

    samples: absolute path of an .npz with one array for each input under its served name, samples along the first
             axis; None: inputs are made up from the interface and the profiles
    max_relative_error: of any element, relative to the largest magnitude in that output of that sample; None: what
             the engine's precision allows
    min_top1_agreement: share of samples whose largest element (along the last axis) is the same one
    min_stable_agreement: the same against stable; None: a new version may answer as it likes
    """

    samples: str | None = None
    max_relative_error: float | None = None
    min_top1_agreement: float = 0.99
    min_stable_agreement: float | None = None


@dataclass(frozen=True, slots=True)
class PerformanceCheck:
    """Is the candidate as fast as stable on the same machine, both in turn under the same load?

    max_latency_ratio:    (quantile, candidate / stable at most)
    min_throughput_ratio: candidate / stable at saturation at least; None: no saturation run, which takes the whole
                          machine for its time
    """

    rate_per_s: float = 20.0
    duration_s: float = 10.0
    max_latency_ratio: tuple[tuple[float, float], ...] = ((0.5, 1.5),)
    min_throughput_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class ColdStartCheck:
    """The first request after ready may take at most this many times the median of those after it."""

    max_first_request_ratio: float = 3.0


@dataclass(frozen=True, slots=True)
class BoundaryCheck:
    """Odd, wrong, oversized and many requests: each gets a right answer or a clear refusal, and the server lives on."""


@dataclass(frozen=True, slots=True)
class CapacityCheck:
    """The share of the machine's memory that must stay free with both servers warm."""

    min_free_memory: float = 0.2


@dataclass(frozen=True, slots=True)
class ConcurrencyCheck:
    """This many inferences at once must give what they give one after the other."""

    contexts: int = 4


@dataclass(frozen=True, slots=True)
class ChecksSpec:
    """The pre-release checks. Build, compatibility and interface always run."""

    parity: ParityCheck | Skip = ParityCheck()
    performance: PerformanceCheck | Skip = PerformanceCheck()
    cold_start: ColdStartCheck | Skip = ColdStartCheck()
    boundary: BoundaryCheck | Skip = BoundaryCheck()
    capacity: CapacityCheck | Skip = CapacityCheck()
    concurrency: ConcurrencyCheck | Skip = ConcurrencyCheck()


class OnFailure(Enum):
    """What follows a FAIL on traffic."""

    ROLLBACK = "rollback"
    PAUSE = "pause"


@dataclass(frozen=True, slots=True)
class ReleaseSpec:
    """A whole release file. `digest` is the sha256 (hex) of its meaning: two files that ask the same have the same."""

    service: str
    protocol: ServingProtocol
    stable: RevisionSpec
    candidate: RevisionSpec
    routing: RoutingSpec
    stages: tuple[Stage, ...]
    judge: JudgeSpec
    on_failure: OnFailure
    digest: str
    checks: ChecksSpec = ChecksSpec()
    notify: tuple[Receiver, ...] = ()
