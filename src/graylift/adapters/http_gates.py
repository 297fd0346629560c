"""ports.Gates over HTTP: a question as JSON, and an answer that is plainly one of three words. All else is AWAY.

A login page, a proxy's error or an empty 200 is no consent. Called by the controller through the port.
"""

from __future__ import annotations

import json
from typing import Any, cast

from graylift.adapters.posts import Posts, Unanswered
from graylift.domain.notices import Gate, GateAnswer, GateState, Question

_WORDS = {state.value: state for state in (GateState.GO, GateState.WAIT, GateState.STOP)}
_LONGEST = 300


class HttpGates:
    """Asks through `posts`, which somebody else closes."""

    def __init__(self, posts: Posts) -> None:
        self._posts = posts

    async def ask(self, gate: Gate, question: Question) -> GateAnswer:
        """See `ports.Gates`."""
        asked = {
            "gate": gate.name,
            "service": question.service,
            "release": question.release_id,
            "candidate": question.candidate,
            "stable": question.stable,
            "stage": question.stage + 1,
            "weight": question.weight,
        }
        try:
            status, body = await self._posts.post(gate.url, asked, gate.timeout_s, signing_key=gate.signing_key)
        except Unanswered as why:
            return GateAnswer(gate.name, GateState.AWAY, str(why))
        if status != 200:
            return GateAnswer(gate.name, GateState.AWAY, f"it answers HTTP {status}, not 200")
        return answer_from(gate.name, body)


def answer_from(gate: str, body: bytes) -> GateAnswer:
    """What `{"answer": "go", "reason": "..."}` says."""
    try:
        said: object = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    fields = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    word, reason = fields.get("answer"), fields.get("reason", "")
    state = _WORDS.get(word) if isinstance(word, str) else None
    if state is None or not isinstance(reason, str):
        return GateAnswer(gate, GateState.AWAY, 'it answers neither {"answer": "go"} nor wait nor stop')
    return GateAnswer(gate, state, "".join(c if c.isprintable() else " " for c in reason[:_LONGEST]).strip())
