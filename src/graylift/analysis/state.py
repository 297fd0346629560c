"""What the judge remembers between two looks, and its text for the store. It does not grow with the release."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from graylift.analysis.bounds import Bounds
from graylift.analysis.mixture import Mixture
from graylift.analysis.paired import Paired
from graylift.analysis.reference import UNKNOWN, Reference
from graylift.analysis.sample import NOTHING, Sample
from graylift.analysis.sickness import NEVER, Recent
from graylift.domain.judgement import Verdict
from graylift.domain.spec import Margin

VERSION = 1


@dataclass(frozen=True, slots=True)
class StageEvidence:
    """What begins anew with each stage.

    weight:    the candidate's, out of TOTAL
    promote:   the promote margin of each check in this stage
    within:    evidence, for each check, that the candidate is within it
    sick:      evidence that the candidate fails far too much by any standard
    candidate, stable: the requests of this stage
    reports:   interval reports with traffic of this stage; its age, in intervals (several gateways age it faster)
    assigned, assigned_candidate: requests since the split settled, abandoned ones among them
    shadow:    is it a shadow stage, judged by pairs of answers alone?
    """

    weight: int
    sticky: bool
    promote: tuple[Margin, ...]
    within: tuple[Mixture, ...]
    sick: Mixture
    candidate: Sample = NOTHING
    stable: Sample = NOTHING
    reports: int = 0
    assigned: int = 0
    assigned_candidate: int = 0
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class JudgeState:
    """The judge between two looks.

    against: evidence, for each check, that the candidate is worse than the rollback margin; over the whole release
    bounds:  of each check's effect; over the whole release
    splits:  of the stages so far, the current one last; what other splits assigned is not of this release
    paired:  evidence of pairs of answers; None in a release without a shadow stage
    found:   the FAIL verdicts, as they were when the evidence was complete; they stay
    """

    against: tuple[Mixture, ...]
    bounds: tuple[Bounds, ...]
    stage: StageEvidence
    splits: tuple[str, ...] = ()
    reference: Reference = UNKNOWN
    recent_candidate: Recent = NEVER
    recent_stable: Recent = NEVER
    found: tuple[Verdict, ...] = ()
    paired: Paired | None = None


_STATE = TypeAdapter(JudgeState)


def dump(state: JudgeState) -> str:
    """The state as JSON. `load` gives an equal state back, to the last bit."""
    return f'{{"version":{VERSION},"state":{_STATE.dump_json(state).decode()}}}'


def load(text: str) -> JudgeState:
    """The state that was dumped. ValueError if it is no such text or of another version."""
    try:
        document = json.loads(text)
        if document["version"] != VERSION:
            raise ValueError(f"the judge's state has version {document['version']}; this Graylift reads {VERSION}")
        return _STATE.validate_python(document["state"])
    except (KeyError, TypeError, json.JSONDecodeError, ValidationError) as error:
        raise ValueError(f"the judge's state cannot be read: {error}") from error
