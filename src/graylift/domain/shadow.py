"""Shadow traffic: two answers to one request, what came of comparing them, and the sums of many such pairs.

The user got stable's answer; the candidate's was kept for this comparison alone. Bodies live in an `Answer` and, if
the release file says so, in an example; nothing else holds any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from graylift.domain.histogram import EMPTY, Histogram, merged
from graylift.domain.spec import KeepExamples, ServingProtocol, Tolerance

MOST_EXAMPLES = 5
"""So many pairs are kept of a stage, those that lie furthest apart."""


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What a request is shadowed for, and how its two answers are to be treated; it travels with each of them.

    revision_id: the candidate's
    limit_s:     the longest an answer may take
    tolerance, keep: see `ShadowJudge`
    """

    service: str
    split: str
    revision_id: str
    protocol: ServingProtocol
    limit_s: float
    tolerance: Tolerance
    keep: KeepExamples


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered to one request. Its body is no part of its `repr`, so that no log can hold it.

    status:    of the server, or of the gateway in its stead (503: it could not be reached, 504: not in time)
    headers:   (lower-case name, value) of the few that say how to read the body
    body:      None if it was too long to be copied
    elapsed_s: from the whole request to the last byte of the answer, both read at the gateway
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes | None = field(repr=False)
    elapsed_s: float

    @property
    def failed(self) -> bool:
        return self.status >= 400

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far the candidate's answer is from stable's.

    drift:   0 for equal answers, 1 for answers that have nothing in common; what it measures, the protocol says
    differs: in what they disagree, in few words and of few kinds (`finish reason`, `output type: top-1`); None if they
             agree
    length_ratio: candidate / stable, of answers that have a length to speak of
    detail:  where they part, for people; it holds nothing of either answer
    """

    drift: float
    differs: str | None
    length_ratio: float | None = None
    detail: str = ""

    @property
    def agrees(self) -> bool:
        return self.differs is None


@dataclass(frozen=True, slots=True)
class Example:
    """A pair that lay far apart, kept for people. Hashes are sha256, as hex; texts are None unless TEXT is kept."""

    request_id: str
    drift: float
    differs: str
    detail: str
    stable_hash: str
    candidate_hash: str
    request: str | None = field(default=None, repr=False)
    stable: str | None = field(default=None, repr=False)
    candidate: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ShadowPair:
    """One request that both revisions answered or failed to.

    ended_s: epoch seconds at which the second answer was there, or was given up
    split:   which stage of which release had it shadowed
    revision_id: the candidate's
    reason:  why the candidate failed, None if it did not
    comparison: None unless both answered, with bodies that could be read
    stable_s, candidate_s: how long each took, None for one that failed
    """

    ended_s: float
    service: str
    split: str
    revision_id: str
    stable_failed: bool
    candidate_failed: bool
    reason: str | None = None
    comparison: Comparison | None = None
    stable_s: float | None = None
    candidate_s: float | None = None
    example: Example | None = None


@dataclass(frozen=True, slots=True)
class BrokenShadow:
    """The candidate's answer to a shadowed request broke off, or never began; `reason` in few words."""

    ended_s: float
    request_id: str
    reason: str


class Lost(Enum):
    """Why a request that was to be shadowed became no pair. SHED: the candidate was not asked, so as not to take more
    of the machine. UNMATCHED: stable's answer was not seen to its end, its client left for instance. CROWDED: more
    came than could be kept in memory or compared in time."""

    SHED = "shed"
    UNMATCHED = "unmatched"
    CROWDED = "crowded"


@dataclass(frozen=True, slots=True)
class ShadowLoss:
    """One request that became no pair."""

    ended_s: float
    service: str
    split: str
    revision_id: str
    why: Lost


@dataclass(frozen=True, slots=True)
class ShadowWindow:
    """All pairs of one split that ended in one interval. Two windows of equal key add up.

    pairs:    requests that both revisions answered or failed to
    only_stable_failed, only_candidate_failed, both_failed: of the pairs
    compared: of the pairs, those whose answers could be compared
    agreeing: of these, those that agree
    drift:    the sum of the drifts of those compared
    latency_ratio, length_ratio: candidate / stable, pair by pair
    stable_s, candidate_s: the durations behind the ratios
    differences: (in what, how many) of those compared that disagree, ascending
    reasons:  (reason, how many) of the candidate's failures, ascending
    lost:     (why, how many) of the requests that became no pair, ascending
    examples: those that lay furthest apart first
    """

    service: str
    split: str
    revision_id: str
    pairs: int = 0
    only_stable_failed: int = 0
    only_candidate_failed: int = 0
    both_failed: int = 0
    compared: int = 0
    agreeing: int = 0
    drift: float = 0.0
    latency_ratio: Histogram = EMPTY
    length_ratio: Histogram = EMPTY
    stable_s: Histogram = EMPTY
    candidate_s: Histogram = EMPTY
    differences: tuple[tuple[str, int], ...] = ()
    reasons: tuple[tuple[str, int], ...] = ()
    lost: tuple[tuple[str, int], ...] = ()
    examples: tuple[Example, ...] = ()

    @property
    def agreement(self) -> float | None:
        """The share of compared pairs that agree; None without any."""
        return self.agreeing / self.compared if self.compared else None

    @property
    def mean_drift(self) -> float | None:
        return self.drift / self.compared if self.compared else None


def summed(windows: Iterable[ShadowWindow]) -> ShadowWindow | None:
    """Windows of one key added up; None of none."""
    all_of_them = tuple(windows)
    if not all_of_them:
        return None
    first = all_of_them[0]
    return ShadowWindow(
        service=first.service,
        split=first.split,
        revision_id=first.revision_id,
        pairs=sum(one.pairs for one in all_of_them),
        only_stable_failed=sum(one.only_stable_failed for one in all_of_them),
        only_candidate_failed=sum(one.only_candidate_failed for one in all_of_them),
        both_failed=sum(one.both_failed for one in all_of_them),
        compared=sum(one.compared for one in all_of_them),
        agreeing=sum(one.agreeing for one in all_of_them),
        drift=sum(one.drift for one in all_of_them),
        latency_ratio=merged(one.latency_ratio for one in all_of_them),
        length_ratio=merged(one.length_ratio for one in all_of_them),
        stable_s=merged(one.stable_s for one in all_of_them),
        candidate_s=merged(one.candidate_s for one in all_of_them),
        differences=_counted(one.differences for one in all_of_them),
        reasons=_counted(one.reasons for one in all_of_them),
        lost=_counted(one.lost for one in all_of_them),
        examples=furthest(example for one in all_of_them for example in one.examples),
    )


def furthest(examples: Iterable[Example]) -> tuple[Example, ...]:
    """The few to be kept: those with the largest drift."""
    return tuple(sorted(examples, key=lambda one: (-one.drift, one.request_id))[:MOST_EXAMPLES])


def _counted(counts: Iterable[tuple[tuple[str, int], ...]]) -> tuple[tuple[str, int], ...]:
    total: Counter[str] = Counter()
    for some in counts:
        total.update(dict(some))
    return tuple(sorted(total.items()))
