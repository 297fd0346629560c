"""`graylift calibrate`: how much replicas of stable wander by themselves, and what that asks of the latency margins.

Called by `main.py`. The estimate is `analysis.wander`'s; here are its sources, the comparison with a release file and
the words.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graylift.adapters.sql_store import SqlStore
from graylift.analysis import wander
from graylift.analysis.wander import Wander
from graylift.cli.desk import open_store
from graylift.cli.installation import installation_from
from graylift.cli.live import console
from graylift.domain.evidence import IntervalReport
from graylift.domain.spec import Check
from graylift.errors import CommandRefused
from graylift.replay.reading import read
from graylift.replay.replicas import LENGTHS_S, Blocks, blocks_from_reports, blocks_of, fitting_length, recorded
from graylift.spec import DEFAULT, load_rules

TOO_NARROW = 2
"""Exit code where a margin of the release file lies below the noise floor."""


def calibrate(
    files: Sequence[Path], service: str | None, rules: Path | None, state: Path | None, *, as_json: bool
) -> int:
    """Exit code: 0, or 2 if a rollback margin of the release file is below the noise floor."""
    if bool(files) == bool(service):
        raise CommandRefused("name either recordings with --file, or a service of this installation with --service")
    judge = DEFAULT if rules is None else load_rules(rules).judge
    checks = [check for check in judge.checks if check.quantile is not None]
    told: tuple[str, ...] = ()
    found: dict[str, Wander | None] = {}
    if service is not None:
        with open_store(installation_from(state)) as store:
            reports = _stored(store, service)
        for check in checks:
            found[check.name] = _of_reports(check, reports, service)
    else:
        replicas = recorded((read(file) for file in files), checks)
        told = tuple(sentence for one in replicas for sentence in one.told)
        for check in checks:
            length_s = fitting_length(replicas, wander.needed(check.quantile or 0.5))
            found[check.name] = _of_blocks(check, [blocks_of(one, check.metric, length_s) for one in replicas])
    narrow = [check for check in checks if _is_narrow(check, found[check.name])] if rules is not None else []
    if as_json:
        sys.stdout.write(json.dumps(_structure(checks, found, narrow, told), indent=2, ensure_ascii=False) + "\n")
    else:
        _show(checks, found, narrow, told, judged=rules is not None)
    return TOO_NARROW if narrow else 0


def widened(check: Check, floor: float) -> tuple[str, str]:
    """rollbackIfWorse and promoteIfWithin, at or above the floor, to two digits."""
    rollback = max(check.rollback_if_worse.value, math.ceil(floor * 100) / 100)
    return f"{rollback:.2f}x", f"{max(check.promote_if_within.value, rollback):.2f}x"


def _stored(store: SqlStore, service: str) -> tuple[IntervalReport, ...]:
    """The evidence of the newest release and what is kept outside releases, each report once."""
    tracked = next((one for one in store.snapshot().services if one.service.name == service), None)
    if tracked is None:
        known = ", ".join(one.service.name for one in store.snapshot().services) or "none yet"
        raise CommandRefused(f"there is no service called {service!r}; services here: {known}")
    reports = {(one.gateway, one.sequence): one for one in store.recent_reports(service, 0.0)}
    if tracked.release is not None:
        reports |= {(one.gateway, one.sequence): one for one in store.history(tracked.release.id).reports}
    return tuple(reports.values())


def _of_reports(check: Check, reports: Sequence[IntervalReport], service: str) -> Wander | None:
    """By the shortest block that says something; gateways see one stable, so each is a series of its own."""
    for length_s in LENGTHS_S:
        series = blocks_from_reports(reports, service, check.metric, length_s)
        found = [one for one in (_of_blocks(check, [blocks]) for blocks in series) if one is not None]
        if found:
            return max(found, key=lambda one: one.sd)
    return None


def _of_blocks(check: Check, blocks: Sequence[Blocks]) -> Wander | None:
    assert check.quantile is not None
    return wander.wander(blocks, check.quantile)


def _is_narrow(check: Check, found: Wander | None) -> bool:
    return found is not None and check.rollback_if_worse.value < found.floor


def _structure(
    checks: Sequence[Check], found: dict[str, Wander | None], narrow: Sequence[Check], told: Sequence[str]
) -> dict[str, Any]:
    """The JSON of `graylift calibrate --json`; `floor` is a ratio."""
    return {
        "metrics": [
            {
                "name": check.name,
                "wander": None if one is None else one.estimate,
                "wander_upper": None if one is None else one.sd,
                "floor": None if one is None else one.floor,
                "blocks": 0 if one is None else one.blocks,
                "replicas_compared": one is not None and one.compared,
                "too_narrow": check in narrow,
            }
            for check in checks
            for one in (found[check.name],)
        ],
        "notes": list(told),
    }


def _show(
    checks: Sequence[Check],
    found: dict[str, Wander | None],
    narrow: Sequence[Check],
    told: Sequence[str],
    *,
    judged: bool,
) -> None:
    for check in checks:
        one = found[check.name]
        if one is None:
            _say(
                f"{check.name}: not known: it takes {wander.FEWEST} blocks of time with enough answers of each replica"
            )
            continue
        ground = "replicas beside each other" if one.compared else "one series with itself, which is weaker ground"
        _say(
            f"{check.name}: one replica wanders by {one.estimate * 100:.1f} % (at most {one.sd * 100:.1f} %, from "
            f"{one.blocks} blocks, {ground}); no rollback margin below {one.floor:.2f}x is safe"
        )
        if check in narrow:
            rollback, promote = widened(check, one.floor)
            _say(
                f"  {check.rollback_if_worse} is below that: a good candidate would be rolled back for the machine's "
                f"mood. Write rollbackIfWorse: {rollback}, promoteIfWithin: {promote}",
                style="red",
            )
        elif judged:
            _say(f"  {check.rollback_if_worse} is wide enough")
    for sentence in told:
        _say(f"note: {sentence}", style="dim")


def _say(line: str, style: str = "") -> None:
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
