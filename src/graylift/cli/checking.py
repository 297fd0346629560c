"""`graylift check`: the whole pre-release checklist of a release file, without a gateway and without a release."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

from graylift.checks.checklist import LocalChecklist
from graylift.cli.installation import Installation, installation_from
from graylift.cli.interrupts import INTERRUPTED, Interrupted, until_stopped
from graylift.cli.live import console
from graylift.cli.steps import steps
from graylift.cli.view import checklist
from graylift.domain.release import CheckOutcome, CheckReport, CheckResult
from graylift.domain.revision import Revision
from graylift.domain.spec import ReleaseSpec
from graylift.spec import load

REJECTED = 4


def check(file: Path, state: Path | None, *, as_json: bool, verbose: bool) -> int:
    """0 if all pass or are skipped, 4 if not, 130 if interrupted."""
    spec = load(file)
    try:
        report = asyncio.run(until_stopped(_checked(installation_from(state), spec, as_json=as_json, verbose=verbose)))
    except Interrupted:
        sys.stderr.write("interrupted; what was built stays, and is found by the next check\n")
        return INTERRUPTED
    if as_json:
        sys.stdout.write(json.dumps(_document(spec, report), indent=2, ensure_ascii=False) + "\n")
    else:
        console.print(f"\n{_outcome(spec, report)}", markup=False, soft_wrap=True)
    return 0 if report.passed else REJECTED


async def _checked(installation: Installation, spec: ReleaseSpec, *, as_json: bool, verbose: bool) -> CheckReport:
    def tell(result: CheckResult) -> None:
        if not as_json:
            show(result, verbose=verbose)

    # Where there is no terminal, the line of each check that ended says how far it is.
    with steps(console, quiet=as_json or not console.is_terminal) as progress:
        return await LocalChecklist(installation.artefacts, progress=progress).run(spec, tell)


def show(result: CheckResult, *, verbose: bool) -> None:
    """One check: on a terminal a row that wraps, elsewhere one line; with `verbose` its evidence below."""
    if console.is_terminal:
        console.print(checklist([result], evidence=verbose))
        return
    console.print(f"{result.outcome.value:12}  {result.check}: {result.sentence}", markup=False, soft_wrap=True)
    for line in result.evidence if verbose else ():
        console.print(f"              {line}", markup=False, soft_wrap=True)


def _outcome(spec: ReleaseSpec, report: CheckReport) -> str:
    """What follows, in one sentence."""
    counts = Counter(result.outcome for result in report.results)
    said = ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in CheckOutcome if counts[outcome])
    name = spec.candidate.name
    if report.passed:
        return f"{name} may see users: {said}. Go on with: graylift run FILE"
    if counts[CheckOutcome.FAIL]:
        return f"{name} must not see users: {said}"
    return f"{name} is not shown to be fit for users, and nothing is said against it: {said}"


def _document(spec: ReleaseSpec, report: CheckReport) -> dict[str, object]:
    return {
        "service": spec.service,
        "specDigest": spec.digest,
        "passed": report.passed,
        "stable": _revision(report.stable),
        "candidate": _revision(report.candidate),
        "checks": [
            {"check": r.check, "outcome": r.outcome.value, "sentence": r.sentence, "evidence": r.evidence}
            for r in report.results
        ],
    }


def _revision(revision: Revision | None) -> dict[str, str] | None:
    return None if revision is None else {"name": revision.name, "id": revision.id, "digest": revision.digest}
