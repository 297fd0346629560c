"""Records of one interval summed into windows. Pure; the intervals themselves are cut in `intervals.py`.

Sums are kept mutable while an interval is open, since ten thousand records a second pass here, and leave as frozen
`Window`s. Windows of equal key add up: in which batches the records came makes no difference.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias, assert_never

from graylift.domain.evidence import AttemptRecord, Outcome, RequestRecord, ScoreRecord, Window
from graylift.domain.histogram import bin_of, histogram_from_counts
from graylift.domain.scores import scores_from_counts, step_of
from graylift.domain.tally import NO_EVENTS, Tally, tallied
from graylift.domain.weights import Role

WindowKey: TypeAlias = "tuple[str, str, Role, str, str | None]"
Attempt: TypeAlias = "tuple[str, str]"
"""A kind of failed attempt: (revision, reason)."""

UNEXPLAINED = "retried elsewhere, reason not seen"
"""The reason of a failure that a retry hid and of which no attempt line was found in the same interval."""


class WindowSum:
    """The running sum of one window."""

    __slots__ = (
        "abandoned",
        "external",
        "failed",
        "input_tokens",
        "latency",
        "output_tokens",
        "reasons",
        "request_bytes",
        "requests",
        "response_bytes",
        "scores",
        "tpot",
        "ttfb",
        "ttft",
        "unanswered",
    )

    def __init__(self) -> None:
        self.requests = self.failed = self.unanswered = self.abandoned = 0
        self.request_bytes = self.response_bytes = 0
        self.input_tokens = self.output_tokens = 0
        self.latency: Counter[int] = Counter()
        self.ttfb: Counter[int] = Counter()
        self.ttft: Counter[int] = Counter()
        self.tpot: Counter[int] = Counter()
        self.reasons: Counter[str] = Counter()
        self.scores: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self.external: dict[str, Tally] = {}

    def add(self, record: RequestRecord) -> None:
        match record.outcome:
            case Outcome.OK:
                timed = (
                    (self.latency, record.duration_s),
                    (self.ttfb, record.ttfb_s),
                    (self.ttft, record.ttft_s),
                    (self.tpot, record.tpot_s),
                )
                # All bins before any count: a record with one impossible number counts nowhere.
                for counts, number in [(counts, bin_of(value)) for counts, value in timed if value is not None]:
                    counts[number] += 1
                self.input_tokens += record.input_tokens or 0
                self.output_tokens += record.output_tokens or 0
            case Outcome.FAILED:
                self.failed += 1
                if not _reached_the_client(record):
                    self.unanswered += 1
                if record.reason is not None:
                    self.reasons[record.reason] += 1
            case Outcome.ABANDONED:
                self.abandoned += 1
                return
            case _:
                assert_never(record.outcome)
        self.requests += 1
        self.request_bytes += record.request_bytes
        self.response_bytes += record.response_bytes

    def add_score(self, record: ScoreRecord) -> None:
        step = step_of(record.value)
        self.scores[record.name][step] += 1

    def add_window(self, window: Window) -> None:
        self.requests += window.requests
        self.failed += window.failed
        self.unanswered += window.unanswered
        self.abandoned += window.abandoned
        self.request_bytes += window.request_bytes
        self.response_bytes += window.response_bytes
        self.latency.update(dict(window.latency.bins))
        self.ttfb.update(dict(window.ttfb.bins))
        self.ttft.update(dict(window.ttft.bins))
        self.tpot.update(dict(window.tpot.bins))
        self.input_tokens += window.input_tokens
        self.output_tokens += window.output_tokens
        self.reasons.update(dict(window.reasons))
        for name, scores in window.scores:
            self.scores[name].update(dict(scores.steps))
        for name, tally in window.external:
            self.external[name] = tallied((self.external.get(name, NO_EVENTS), tally))

    def window(self, key: WindowKey) -> Window:
        service, split, arm, revision_id, label = key
        return Window(
            service=service,
            split=split,
            arm=arm,
            revision_id=revision_id,
            label=label,
            requests=self.requests,
            failed=self.failed,
            unanswered=self.unanswered,
            abandoned=self.abandoned,
            request_bytes=self.request_bytes,
            response_bytes=self.response_bytes,
            latency=histogram_from_counts(self.latency),
            ttfb=histogram_from_counts(self.ttfb),
            reasons=tuple(sorted(self.reasons.items())),
            ttft=histogram_from_counts(self.ttft),
            tpot=histogram_from_counts(self.tpot),
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            scores=tuple((name, scores_from_counts(counts)) for name, counts in sorted(self.scores.items())),
            external=tuple((name, self.external[name]) for name in sorted(self.external)),
        )


class WindowSums:
    """The running sums of all windows of one interval, and its failed attempts by kind."""

    __slots__ = ("_sums", "attempts")

    def __init__(self) -> None:
        self._sums: defaultdict[WindowKey, WindowSum] = defaultdict(WindowSum)
        self.attempts: Counter[Attempt] = Counter()

    def add(self, record: RequestRecord | ScoreRecord | AttemptRecord) -> None:
        match record:
            case AttemptRecord():
                self.attempts[record.revision_id, record.reason] += 1
            case RequestRecord():
                self._sum_of(record).add(record)
            case ScoreRecord():
                self._sum_of(record).add_score(record)
            case _:
                assert_never(record)

    def add_windows(self, windows: Iterable[Window]) -> None:
        for window in windows:
            key = (window.service, window.split, window.arm, window.revision_id, window.label)
            self._sums[key].add_window(window)

    def _sum_of(self, record: RequestRecord | ScoreRecord) -> WindowSum:
        return self._sums[record.service, record.split, record.arm, record.revision_id, record.label]

    def windows(self) -> tuple[Window, ...]:
        """The sums, ascending by key; failures that a retry hid have no reason in them yet (see `explained`)."""
        return tuple(self._sums[key].window(key) for key in sorted(self._sums, key=_order))


def explained(windows: Sequence[Window], attempts: Counter[Attempt]) -> tuple[Window, ...]:
    """The windows with a reason for every failure. What is used of `attempts` is taken from it.

    A failure that the client saw carries its reason in the request's own line. One that a retry hid does not: it takes
    the reason of a failed attempt of its revision that no visible failure accounts for. An attempt names neither
    service nor arm, so where two windows of one revision both miss reasons, which of them gets which is by order.
    """
    for window in windows:
        for reason, count in window.reasons:
            _take(attempts, (window.revision_id, reason), count)
    return tuple(_with_reasons(window, attempts) for window in windows)


def summed(windows: Iterable[Window]) -> tuple[Window, ...]:
    """Windows of equal key added up, ascending by key."""
    sums = WindowSums()
    sums.add_windows(windows)
    return sums.windows()


def _with_reasons(window: Window, attempts: Counter[Attempt]) -> Window:
    missing = window.failed - sum(count for _, count in window.reasons)
    if missing <= 0:
        return window
    reasons = Counter(dict(window.reasons))
    for attempt in sorted(attempts):
        if attempt[0] == window.revision_id:
            taken = _take(attempts, attempt, missing)
            reasons[attempt[1]] += taken
            missing -= taken
    reasons[UNEXPLAINED] += missing
    return replace(window, reasons=tuple(sorted((+reasons).items())))


def _take(attempts: Counter[Attempt], attempt: Attempt, count: int) -> int:
    """Take up to `count` of one kind of attempt, and say how many there were."""
    taken = min(count, attempts[attempt])
    attempts[attempt] -= taken
    return taken


def _reached_the_client(record: RequestRecord) -> bool:
    """Did the client get a complete good answer, from whomever?"""
    return record.answered_by is not None and 0 < record.status < 400


def _order(key: WindowKey) -> tuple[str, str, str, str, str]:
    service, split, arm, revision_id, label = key
    return service, split, arm.value, revision_id, label or ""
