"""Pairs of answers of one interval summed into windows. Pure; the halves of a pair meet in `pairs.py`, intervals are
cut in `intervals.py`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from graylift.domain.histogram import bin_of, histogram_from_counts
from graylift.domain.shadow import Example, ShadowLoss, ShadowPair, ShadowWindow, furthest, summed


class ShadowSum:
    """The running sum of one `ShadowWindow`."""

    __slots__ = (
        "agreeing",
        "both_failed",
        "candidate_s",
        "compared",
        "differences",
        "drift",
        "examples",
        "latency_ratio",
        "length_ratio",
        "lost",
        "only_candidate_failed",
        "only_stable_failed",
        "pairs",
        "reasons",
        "stable_s",
    )

    def __init__(self) -> None:
        self.pairs = self.only_stable_failed = self.only_candidate_failed = self.both_failed = 0
        self.compared = self.agreeing = 0
        self.drift = 0.0
        self.latency_ratio: Counter[int] = Counter()
        self.length_ratio: Counter[int] = Counter()
        self.stable_s: Counter[int] = Counter()
        self.candidate_s: Counter[int] = Counter()
        self.differences: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.examples: tuple[Example, ...] = ()

    def add(self, record: ShadowPair | ShadowLoss) -> None:
        if isinstance(record, ShadowLoss):
            self.lost[record.why.value] += 1
            return
        self.pairs += 1
        self.only_stable_failed += record.stable_failed and not record.candidate_failed
        self.only_candidate_failed += record.candidate_failed and not record.stable_failed
        self.both_failed += record.stable_failed and record.candidate_failed
        if record.reason is not None:
            self.reasons[record.reason] += 1
        if record.stable_s is not None and record.candidate_s is not None:
            self.stable_s[bin_of(record.stable_s)] += 1
            self.candidate_s[bin_of(record.candidate_s)] += 1
            self.latency_ratio[bin_of(record.candidate_s / max(record.stable_s, 1e-6))] += 1
        comparison = record.comparison
        if comparison is not None:
            self.compared += 1
            self.drift += comparison.drift
            self.agreeing += comparison.agrees
            if comparison.differs is not None:
                self.differences[comparison.differs] += 1
            if comparison.length_ratio is not None:
                self.length_ratio[bin_of(comparison.length_ratio)] += 1
        if record.example is not None:
            self.examples = furthest((*self.examples, record.example))

    def window(self, service: str, split: str, revision_id: str) -> ShadowWindow:
        return ShadowWindow(
            service=service,
            split=split,
            revision_id=revision_id,
            pairs=self.pairs,
            only_stable_failed=self.only_stable_failed,
            only_candidate_failed=self.only_candidate_failed,
            both_failed=self.both_failed,
            compared=self.compared,
            agreeing=self.agreeing,
            drift=self.drift,
            latency_ratio=histogram_from_counts(self.latency_ratio),
            length_ratio=histogram_from_counts(self.length_ratio),
            stable_s=histogram_from_counts(self.stable_s),
            candidate_s=histogram_from_counts(self.candidate_s),
            differences=tuple(sorted(self.differences.items())),
            reasons=tuple(sorted(self.reasons.items())),
            lost=tuple(sorted(self.lost.items())),
            examples=self.examples,
        )


class ShadowSums:
    """The running sums of all windows of one interval, by service, split and revision."""

    __slots__ = ("_kept", "_sums")

    def __init__(self) -> None:
        self._sums: defaultdict[tuple[str, str, str], ShadowSum] = defaultdict(ShadowSum)
        self._kept: list[ShadowWindow] = []

    def add(self, record: ShadowPair | ShadowLoss) -> None:
        self._sums[record.service, record.split, record.revision_id].add(record)

    def add_windows(self, windows: Iterable[ShadowWindow]) -> None:
        self._kept.extend(windows)

    def windows(self) -> tuple[ShadowWindow, ...]:
        """The sums, ascending by key."""
        by_key: defaultdict[tuple[str, str, str], list[ShadowWindow]] = defaultdict(list)
        for window in (*self._kept, *(sums.window(*key) for key, sums in self._sums.items())):
            by_key[window.service, window.split, window.revision_id].append(window)
        return tuple(window for key in sorted(by_key) if (window := summed(by_key[key])) is not None)
