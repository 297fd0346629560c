"""A release retold in plain words, in the order in which it happened. Called through `graylift.report`.

It says what the page says, as sentences for somebody who was not there.
"""

from __future__ import annotations

from collections.abc import Iterator

from graylift.domain.judgement import Ruling, Verdict
from graylift.domain.release import CheckOutcome, Phase
from graylift.domain.spec import Check, MarginKind
from graylift.report import words
from graylift.report.facts import Facts, StageFacts
from graylift.report.shadow import lines_from
from graylift.report.template import checks_of

_RULING = {
    Ruling.PASS: "shown to be good enough",
    Ruling.FAIL: "shown to be worse than the rollback limit",
    Ruling.INCONCLUSIVE: "not decided",
}


def explanation_from(facts: Facts) -> str:
    """Paragraphs, separated by an empty line."""
    return "\n\n".join(_paragraphs(facts)) + "\n"


def _paragraphs(facts: Facts) -> Iterator[str]:
    release = facts.release
    yield f"{release.id}: {facts.outcome}."
    yield (
        f"It began at {words.utc(release.created_s)} and was to replace {facts.stable.spec.name} by "
        f"{facts.candidate.spec.name} in {len(release.spec.stages)} stages "
        f"({', '.join(map(str, release.spec.stages))})."
    )
    yield _checks(facts)
    if not facts.stages:
        yield "The candidate got no traffic, so no user met it."
    for stage in facts.stages:
        yield "\n".join(_stage(facts, stage))
    if facts.stages:
        yield _users(facts)
    if facts.gaps or facts.unreadable:
        missing = [f"{why} ({count:,} reports)" for why, count in facts.gaps]
        if facts.unreadable:
            missing.append(f"{facts.unreadable:,} log lines could not be read")
        yield f"Evidence that is missing, and counted for nobody: {'; '.join(missing)}."
    yield _end(facts)


def _checks(facts: Facts) -> str:
    results = facts.release.checks
    if results is None:
        return "Its pre-release checks have not ended yet."
    by_outcome = {outcome: [one for one in results if one.outcome is outcome] for outcome in CheckOutcome}
    passed = ", ".join(one.check for one in by_outcome[CheckOutcome.PASS]) or "none"
    told = [f"Before any traffic {len(results)} checks ran. Passed: {passed}."]
    for outcome, verb in (
        (CheckOutcome.FAIL, "failed"),
        (CheckOutcome.INCONCLUSIVE, "could not be decided"),
        (CheckOutcome.SKIPPED, "was skipped"),
    ):
        told += [f"{one.check} {verb}: {one.sentence}." for one in by_outcome[outcome]]
    return " ".join(told)


def _stage(facts: Facts, stage: StageFacts) -> Iterator[str]:
    what = "with all of the traffic" if stage.stage.is_watch else f"with {stage.stage.weights} of the traffic"
    if stage.stage.shadow is not None:
        what = f"in which the candidate answered {stage.stage.shadow.share} of the requests for nobody's eyes"
    ended = f"until {words.utc(stage.left_s)}" if stage.left_s is not None else "and still there"
    yield (
        f"Stage {stage.number}, {what}, from {words.utc(stage.entered_s)} {ended}: observed for "
        f"{words.span(stage.observed_s)}, {stage.candidate_n:,} requests to the candidate and {stage.stable_n:,} to "
        "stable."
    )
    for verdict in stage.verdicts:
        yield f"  - {_verdict(facts, verdict)}"
    for line in () if stage.shadow is None else lines_from(stage.shadow):
        yield f"  - {line}"
    yield f"  {'It was left' if stage.left_s is not None else 'It waits'}: {stage.why}."


def _verdict(facts: Facts, verdict: Verdict) -> str:
    check = checks_of(facts)[verdict.check]
    ours, theirs = (words.measured(value, check) for value in (verdict.candidate, verdict.stable))
    return (
        f"{verdict.check} was {_RULING[verdict.ruling]}: candidate {ours} (n={verdict.candidate_n:,}), stable {theirs} "
        f"(n={verdict.stable_n:,}); {_effect_name(check)}, with 95 % certainty at every look: "
        f"{words.effect(verdict, check)}. {verdict.sentence[0].upper()}{verdict.sentence[1:]}."
    )


def _effect_name(check: Check) -> str:
    return "the ratio" if check.rollback_if_worse.kind is MarginKind.RATIO else "the difference"


def _users(facts: Facts) -> str:
    told: list[str] = []
    for arm in facts.arms:
        totals = arm.totals
        why = ", ".join(f"{reason} {count:,}x" for reason, count in totals.reasons[:3])
        told.append(
            f"{arm.spec.name} ({arm.role.value}) got {totals.requests:,} requests and failed {totals.failed:,} of them"
            + (f" ({why})" if why else "")
            + f"; {totals.unanswered:,} of its failures reached a client"
        )
    return f"In all, {'; '.join(told)}."


def _end(facts: Facts) -> str:
    release = facts.release
    by_people = [f"{event.by} ({event.kind})" for event in facts.events if event.by != "graylift"]
    hands = f" People had a hand in it: {', '.join(dict.fromkeys(by_people))}." if by_people else ""
    match release.phase:
        case Phase.PROMOTED:
            how = "It went through every stage, by its verdicts or by a person's word, and became the new stable"
        case Phase.ROLLED_BACK | Phase.ROLLING_BACK | Phase.ROLLBACK_FAILED:
            how = "It was taken back"
        case Phase.REJECTED:
            how = "It was rejected before traffic"
        case _:
            how = "It is still under way"
    last = release.done[-1].why if release.done and release.phase is not Phase.PROMOTED else release.reason
    return f"{how}: {last}.{hands}"
