"""The demo's release files: written to be read. Knows the words of a release file and no models.

The numbers that were tuned (weights, times, margins) stand in blocks below, two for each scenario, and nowhere
else; the rates they were tuned for stand beside the scenarios. Called by the scenarios.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FILE_TYPES_CHECKED = """\
  # Before any user sees the candidate. Every check has defaults; these fit two cores that everything here shares.
  checks:
    parity: {samples: files.npz}
    performance: {rate: 40/s, duration: 4s, maxLatencyRatio: {p50: 2}}
    concurrency: {contexts: 2}
"""

FILE_TYPES_CHECKED_ON_LONG_FILES = FILE_TYPES_CHECKED.replace(
    "parity: {samples: files.npz}",
    "# Somebody took the largest files there were, so that none of these inputs has any padding.\n"
    "    parity: {samples: long-files.npz}",
)

CONTAINER_NUMBERS_CHECKED = """\
  # Before any user sees the candidate. Every check has defaults; these fit two cores that everything here shares, and
  # a v4 that is known to need 1.25 times the processor time of v3.
  checks:
    parity: {samples: lines.npz}
    performance: {rate: 20/s, duration: 6s, maxLatencyRatio: {p50: 2}}
    concurrency: {contexts: 2}
"""

CONTAINER_NUMBERS_UNMEASURED = CONTAINER_NUMBERS_CHECKED.replace(
    "{rate: 20/s, duration: 6s, maxLatencyRatio: {p50: 2}}",
    "{skip: left out here to see that traffic finds what this would have found}",
)

FILE_TYPES_JUDGED = """\
  stages:
    # At 1 % and 80 requests/s the candidate gets some 20 requests in 25 s: enough to see a catastrophe, not a nuance.
    # So this stage asks little (20 requests with none beyond the margin are about enough), the later ones ask more.
    - weight: 1
      observe: 18s
      minRequests: 10
      promoteIfWithin: {errors: 20pp, latency p50: 3x, latency p75: 4x}
    - weight: 5
      observe: 10s
      minRequests: 25
      promoteIfWithin: {errors: 10pp, latency p50: 2.5x, latency p75: 3.25x}
    # From here on there is data enough for the margins of the judge below.
    - {weight: 20, observe: 10s, minRequests: 100}
    - {weight: 50, observe: 10s, minRequests: 250}
    # All traffic is on the candidate; the old version stays warm, ready to take it back, until the watch ends.
    - {weight: 100, watch: 10s}

  judge:
    # The chance that a good candidate is ever rolled back, over the whole release and however often one looks.
    falseRollback: 1%
    # Two margins each: worse than the first, established, rolls back; within the second, established, lets go on.
    # Between them neither is claimed. Everything here shares two cores (gateway, two model servers, load, judge), so
    # that even two copies of one model differ by ten percent or more for seconds at a time; margins on latency must
    # lie well above that. On machines that serve nothing else, 1.1x to 1.2x are in reach.
    # The 75th percentile, because nobody can tell a p90 from fewer than 40 requests, which would take 50 s at 1 %. A
    # busier service takes p99.
    metrics:
      - {name: errors, rollbackIfWorse: 2pp, promoteIfWithin: 4pp}
      - {name: latency, quantile: 0.5, rollbackIfWorse: 1.75x, promoteIfWithin: 2.25x}
      - {name: latency, quantile: 0.75, rollbackIfWorse: 2x, promoteIfWithin: 2.75x}
"""
"""Chosen for 80 requests/s of 5 ms each, on a server that does one at a time and so is busy 40 % of its time. At 150/s
it would queue: stable, with 99 % of the traffic, would look three times slower than a candidate that hardly has any,
and in the middle stages every small difference in speed would be a large one in waiting. The margins on latency follow
exp(3 sd), sd being that of the difference of two replicas that wander by 12 %. In a simulation of the judge with such
queues, such replicas, and every seventh second up to 3.5 times slower for both, 1 of 100 A/A releases is rolled back;
with replicas that wander by 7 % and rarer slow seconds 0 of 100, which take 66 s (59 to 77 s for 8 of 10)."""

CONTAINER_NUMBERS_JUDGED = """\
  stages:
    # Reading an image takes 8 to 11 ms, so this service gets 30 requests/s, and 1 % would be one request in 3 s.
    # It therefore begins with 5 %: as many candidate requests a second as 1 % of a busier service.
    - weight: 5
      observe: 18s
      minRequests: 18
      promoteIfWithin: {errors: 20pp, latency p50: 3x, latency p75: 4x}
    - weight: 20
      observe: 12s
      minRequests: 50
      promoteIfWithin: {errors: 10pp, latency p50: 2.5x, latency p75: 3x}
    - {weight: 50, observe: 15s, minRequests: 150, promoteIfWithin: {errors: 5pp}}
    # All traffic is on the candidate; the old version stays warm, ready to take it back, until the watch ends.
    - {weight: 100, watch: 10s}

  judge:
    # The chance that a good candidate is ever rolled back, over the whole release and however often one looks.
    falseRollback: 1%
    # Two margins each: worse than the first, established, rolls back; within the second, established, lets go on.
    # v4 is known to need 1.25 times the processor time of v3, and that is accepted for what it reads better; on two
    # shared cores copies of one model differ by ten percent or more besides. The margins lie above both together.
    metrics:
      - {name: errors, rollbackIfWorse: 2pp, promoteIfWithin: 4pp}
      - {name: latency, quantile: 0.5, rollbackIfWorse: 1.75x, promoteIfWithin: 2.25x}
      - {name: latency, quantile: 0.75, rollbackIfWorse: 2x, promoteIfWithin: 2.75x}
"""
"""Chosen as above, for 30 requests/s. A model made four times slower lies at 3.5x and more, beyond all of them."""


@dataclass(frozen=True, slots=True)
class Side:
    """One revision. model: path from the release file; outputs: served name -> the model's own, where they differ;
    profile: the shapes it serves, as YAML."""

    revision: str
    model: str
    outputs: Mapping[str, str]
    profile: str


def release_text(service: str, story: str, stable: Side, candidate: Side, checked: str, judged: str) -> str:
    """A whole release file. story: what it is about, one or more lines of plain text."""
    told = "".join(f"# {line}\n" for line in story.strip().splitlines())
    return f"""\
{told}apiVersion: graylift.dev/v1
kind: Release
metadata: {{name: {service}}}
spec:
  protocol: open-inference

  stable:{_side_text(stable)}
  candidate:{_side_text(candidate)}
{checked}
  routing:
    # A user stays on one revision, and nobody who has seen the candidate is moved back while its weight rises.
    sticky: {{header: x-user-id}}

{judged}
  onFailure: rollback
"""


def _side_text(side: Side) -> str:
    names = ""
    if side.outputs:
        pairs = ", ".join(f"{served}: {own}" for served, own in side.outputs.items())
        names = f"""
      # Clients know one name; each model has its own.
      outputs: {{{pairs}}}"""
    return f"""
    revision: {side.revision}
    model:
      onnx: {side.model}
      threads: 1
      # What lies outside is refused with a clear answer. Without a bound, one huge request takes all of the memory.
      profiles: [{side.profile}]{names}
"""
