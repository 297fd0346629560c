"""The judge beside its peers on the same simulated releases: `python benchmarks/judge/compare.py PART`.

boundary:  10,000 releases without any margin, then 10,000 exactly at every margin: how often ours rolls them back
equal:     equal revisions, and candidates exactly at every margin: how often each judge rolls them back
detection: regressions: how many of the candidate's requests, and of its bad answers, until each judge rolls back
A bad answer failed, or took longer than BAD_S. One core: 15, 10 and 5 minutes. `--json FILE` keeps the figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from judged_releases import shown
from judged_traffic import errors, latency, ratio
from numpy.typing import NDArray
from peers import NO_MARGINS, Kayenta, PeekingT, Thresholds, series
from side_by_side import Tables, evidence, first_fail, tables
from simulated_releases import EARLIER, MIDDLES_S, NO_CHANGE, ArmCounts, Change, Release, release, slower

from graylift.domain.histogram import BASE
from graylift.domain.spec import Check

NEXT_TO_NONE = 1 + 1e-9
BOUND = 0.01
BATCH = 50
SLO_S = 0.44
"""The limit of Flagger's and Argo's p99: a quarter above what stable has in an average hour."""
BAD_S = 0.35
"""Stable's own p99 in an average hour."""

MARGINS = (errors(ratio(1.2), ratio(2)), latency(0.5, 1.05, 1.1), latency(0.9, 1.1, 1.15), latency(0.99, 1.1, 1.2))
BARE = (errors(ratio(NEXT_TO_NONE), ratio(2)), *(latency(q, NEXT_TO_NONE, 1.2) for q in (0.5, 0.9, 0.99)))
AT_EVERY_MARGIN = Change(more_errors=1.2, faster_half=BASE**5, slower_half=BASE**10)
ALLOWED = (1.2, 1.05, 1.1, 1.1, 1.05)

ROWS = {
    "p99 x1.2": Change(tail=1.2),
    "p99 x1.5": Change(tail=1.5),
    "p99 x2": Change(tail=2.0),
    "all latency x1.1": slower(1.1),
    "errors +0.5pp": Change(errors=0.005),
    "errors +2pp": Change(errors=0.02),
    "errors +10pp": Change(errors=0.1),
    "every request fails": Change(errors=1.0),
    "errors +2pp from 60 % on": Change(errors=0.02, onset=0.6),
    "p99 x2 from 60 % on": Change(tail=2.0, onset=0.6),
}

OURS, OURS_BARE = "ours, margins", "ours, no margins"
TO_PRODUCTION, TO_BASELINE = "production", "baseline"
KAYENTA = {
    f"Kayenta against {control}, {kind}{margins}": (control, Kayenta(critical=kind == "critical", allowed=allowed))
    for margins, allowed in (("", NO_MARGINS), (", margins", ALLOWED))
    for control in (TO_PRODUCTION, TO_BASELINE)
    for kind in ("default", "critical")
}
FLAGGER, ARGO, PEEKING = "Flagger", "Argo", "t-test each minute"
JUDGES = (OURS, OURS_BARE, *KAYENTA, FLAGGER, ARGO, PEEKING)


@dataclass(frozen=True, slots=True)
class Found:
    """When one judge rolls back each release: interval (-1: never), and the candidate's requests and bad answers
    until then (to the end, if never)."""

    interval: NDArray[np.int64]
    requests: NDArray[np.int64]
    bad: NDArray[np.int64]


def by_peers(one: Release) -> dict[str, int]:
    assert one.baseline is not None
    stable = ArmCounts(*(part[EARLIER:] for part in (one.stable.requests, one.stable.failed, one.stable.latency)))
    arms = {"candidate": one.candidate, TO_PRODUCTION: stable, TO_BASELINE: one.baseline}
    minutes = {name: arm.minutes() for name, arm in arms.items()}
    seen = {name: series(arm) for name, arm in minutes.items()}
    found = {name: judge.first_fail(seen["candidate"], seen[control]) for name, (control, judge) in KAYENTA.items()}
    found[FLAGGER] = Thresholds(0.01, SLO_S, 5).first_fail(seen["candidate"])
    found[ARGO] = Thresholds(0.05, SLO_S, 4).first_fail(seen["candidate"])
    found[PEEKING] = PeekingT().first_fail(minutes["candidate"], minutes[TO_PRODUCTION])
    return found


def compared(change: Change, releases: int, seed: int) -> dict[str, Found]:
    """All judges on the same releases."""
    rows: dict[str, list[int]] = {name: [] for name in JUDGES}
    requests, bad = [], []
    for batch in _batches(releases):
        seen: dict[str, list[Tables]] = {OURS: [], OURS_BARE: []}
        for number in batch:
            one = release(np.random.default_rng((seed, number)), change, baseline=True)
            seen[OURS].append(tables(one, MARGINS))
            seen[OURS_BARE].append(tables(one, BARE))
            for name, interval in by_peers(one).items():
                rows[name].append(interval)
            requests.append(np.cumsum(one.candidate.requests))
            bad.append(np.cumsum(one.candidate.failed + one.candidate.latency[:, MIDDLES_S > BAD_S].sum(axis=1)))
        for name, checks in ((OURS, MARGINS), (OURS_BARE, BARE)):
            rows[name] += first_fail(evidence(seen[name], checks), BOUND).tolist()
    intervals = {name: np.array(found) for name, found in rows.items()}
    every = np.arange(releases)
    return {
        name: Found(found, np.array(requests)[every, found], np.array(bad)[every, found])
        for name, found in intervals.items()
    }


def boundary(releases: int) -> Iterator[dict[str, object]]:
    cases: tuple[tuple[str, Change, tuple[Check, ...]], ...] = (
        ("equal revisions, no margins", NO_CHANGE, BARE),
        ("exactly at every margin", AT_EVERY_MARGIN, MARGINS),
    )
    for seed, (name, change, checks) in enumerate(cases):
        failed = 0
        for batch in _batches(releases):
            seen = [tables(release(np.random.default_rng((100 + seed, number)), change), checks) for number in batch]
            failed += int((first_fail(evidence(seen, checks), BOUND) >= 0).sum())
            if (batch.stop * 10) % releases == 0:
                print(f"  {name}: {batch.stop:,} releases, {failed} rolled back", flush=True)
        print(f"{name}, bound {BOUND:.0%}: {shown(failed, releases)}", flush=True)
        yield {"case": name, "failed": failed, "releases": releases}


def equal(releases: int) -> Iterator[dict[str, object]]:
    for seed, (case, change) in enumerate((("equal", NO_CHANGE), ("at every margin", AT_EVERY_MARGIN))):
        print(case, flush=True)
        for name, found in compared(change, releases, seed).items():
            failed = int((found.interval >= 0).sum())
            print(f"  {name:45} {shown(failed, releases)}", flush=True)
            yield {"case": case, "judge": name, "failed": failed, "releases": releases}


def detection(releases: int) -> Iterator[dict[str, object]]:
    for seed, (row, change) in enumerate(ROWS.items()):
        print(row, flush=True)
        for name, found in compared(change, releases, seed=10 + seed).items():
            began = int(change.onset * 1_000)
            early, caught = (found.interval >= 0) & (found.interval < began), found.interval >= began
            needed = np.where(found.interval >= 0, found.requests, np.inf)
            median = float(np.median(needed))
            print(
                f"  {name:45} {'never' if np.isinf(median) else f'{median:,.0f}':>8} | {found.bad.mean():8,.1f} bad"
                f" | {caught.mean():5.0%}" + (f" (before it began: {early.mean():.0%})" if early.any() else ""),
                flush=True,
            )
            yield {
                "row": row,
                "judge": name,
                "median": None if np.isinf(median) else median,
                "bad": float(found.bad.mean()),
                "power": float(caught.mean()),
                "early": float(early.mean()),
            }


def _batches(releases: int) -> Iterator[range]:
    for begin in range(0, releases, BATCH):
        yield range(begin, min(begin + BATCH, releases))


PARTS = {"boundary": (boundary, 10_000), "equal": (equal, 2_000), "detection": (detection, 200)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=tuple(PARTS))
    parser.add_argument("--releases", type=int)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    part, usual = PARTS[given.part]
    figures = list(part(given.releases or usual))
    if given.json:
        given.json.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
