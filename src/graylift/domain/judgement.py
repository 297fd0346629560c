"""What the judge says, and what is decided on it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from graylift.domain.shadow import ShadowWindow


class Ruling(Enum):
    """PASS: non-inferior within the promote margin, established in this stage.
    FAIL: worse than the rollback margin, established. INCONCLUSIVE: neither, yet."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One check, judged.

    sentence: the whole story for people: both numbers, both sample sizes, the limit
    candidate, stable: the measured values of this stage (a share for errors, seconds for latency); None without data
    effect_low, effect_high: 95 % anytime-valid interval of the effect in the margin's unit
                             (ratio, or difference as a share); None while it is unbounded or unknown
    evidence_against, evidence_for: natural logarithm of the e-value that it is worse than the rollback margin,
                             and that it is within the promote margin
    """

    check: str
    ruling: Ruling
    sentence: str
    candidate: float | None
    stable: float | None
    candidate_n: int
    stable_n: int
    effect_low: float | None
    effect_high: float | None
    evidence_against: float
    evidence_for: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """All verdicts of one look.

    failed:  the combined evidence reached the release's false-rollback bound; `verdicts` holds at least one FAIL.
             Once found it stays, however reports were batched
    passed:  every check is PASS in this stage, at this look
    stable_sick: why stable itself is not fit to compare with, None if it is; holds the stage
    candidate_sick: why the candidate is unwell by absolute measure; decides only where there is nothing to compare with
    share_off: why the observed split is not the configured one, None if it is; pauses the release
    candidate_n, stable_n: requests of this stage; of a shadow stage, `candidate_n` are the pairs of answers
    shadow: all pairs of this stage, None outside of shadow stages and before the first pair
    """

    verdicts: tuple[Verdict, ...]
    failed: bool
    passed: bool
    stable_sick: str | None
    candidate_sick: str | None
    share_off: str | None
    candidate_n: int
    stable_n: int
    shadow: ShadowWindow | None = None


class DecisionKind(Enum):
    """HOLD: stay as it is. ADVANCE: next stage (or next phase before the first stage). PROMOTE: to all traffic, or
    from the watch to the end. ROLLBACK: back to stable. PAUSE: hold until a person resumes. REJECT: no user sees it."""

    HOLD = "HOLD"
    ADVANCE = "ADVANCE"
    PROMOTE = "PROMOTE"
    ROLLBACK = "ROLLBACK"
    PAUSE = "PAUSE"
    REJECT = "REJECT"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and why in one sentence."""

    kind: DecisionKind
    why: str
