"""The requests that ended lately, by id: where a score that comes afterwards belongs. In memory only, and bounded.

After a restart of the agent the ids of before are unknown; a score of one is refused then, and never counted twice.
Written by the thread that reads the log, asked by the loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from threading import Lock

from graylift.domain.evidence import RequestRecord, ScoreRecord
from graylift.domain.scores import Score, Scored, ScoreFate
from graylift.domain.weights import Role

MOST = 100_000
LONGEST_S = 3600.0

_COUNTED = Scored(ScoreFate.COUNTED)
_REPEATED = Scored(ScoreFate.REPEATED, "this request has a score of this name already, and keeps it")


@dataclass(slots=True)
class _Ended:
    ended_s: float
    assigned: tuple[str, str, Role, str, str | None]
    scored: set[str] = field(default_factory=set[str])
    shared: bool = False


class RecentRequests:
    """The last `most` requests, none older than `longest_s`."""

    def __init__(self, most: int = MOST, longest_s: float = LONGEST_S) -> None:
        self._most = most
        self._longest_s = longest_s
        self._by_id: OrderedDict[str, _Ended] = OrderedDict()
        self._lock = Lock()

    def remember(self, record: RequestRecord) -> None:
        """A request has ended. One without an id cannot be scored."""
        if record.request_id is None:
            return
        assigned = (record.service, record.split, record.arm, record.revision_id, record.label)
        with self._lock:
            known = self._by_id.get(record.request_id)
            if known is None:
                self._by_id[record.request_id] = _Ended(record.ended_s, assigned)
                if len(self._by_id) > self._most:
                    self._by_id.popitem(last=False)
            elif known.assigned != assigned:
                known.shared = True

    def score(
        self, score: Score, known: Mapping[str, Collection[str]], now: float
    ) -> tuple[Scored, ScoreRecord | None]:
        """What becomes of a score, and the record to count if it is to be counted. See `ports.Scores`."""
        with self._lock:
            self._forget(now)
            ended = self._by_id.get(score.request_id)
            if ended is None:
                return Scored(ScoreFate.UNKNOWN, _unknown(self._most, self._longest_s)), None
            service = ended.assigned[0]
            names = known.get(service, ())
            if score.name not in names:
                judged = f"judged of {service} now: {', '.join(sorted(names)) or 'none'}"
                cure = "add it to judge.metrics of the release file"
                return Scored(ScoreFate.REFUSED, f"no score is called {score.name!r} ({judged}): {cure}"), None
            if ended.shared:
                why = (
                    "several requests with different assignments had this id; send each with an id of its own, or none"
                )
                return Scored(ScoreFate.REFUSED, why), None
            if score.name in ended.scored:
                return _REPEATED, None
            ended.scored.add(score.name)
            return _COUNTED, ScoreRecord(now, *ended.assigned, score.name, score.value)

    def _forget(self, now: float) -> None:
        while self._by_id and next(iter(self._by_id.values())).ended_s < now - self._longest_s:
            self._by_id.popitem(last=False)


def _unknown(most: int, longest_s: float) -> str:
    return (
        "no request of this id has ended here; the id is the answer's header x-request-id, and the last "
        f"{most:,} requests of the last {longest_s / 60:g} minutes are remembered, as long as the agent runs"
    )
