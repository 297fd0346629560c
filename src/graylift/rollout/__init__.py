"""The state machine of a release: what to do next, what it becomes, what gateways and servers must then do.

Pure: `now` is an argument, and nothing here knows where evidence comes from or how a table reaches a gateway. The
controller calls it once a look, in this order: `retire` what nobody uses any more, `obey` what people said, `credit`
what was observed, `decide`, `evolve`, `settle` what that means for the service, then `routes`, `wanted` and `kept`.

Three rules hold whatever is put in:
- a weight rises only on a PASS of every check, or because a person said so; evidence that is missing holds;
- a rollback needs no evidence, and once begun, a release never gets traffic again;
- a release moves one stage at a time, and its final phases are final.
"""

from graylift.rollout.arms import stage_ahead, weights_of
from graylift.rollout.commands import Obeyed, obey
from graylift.rollout.decisions import ROLLBACK_WITHIN_S, decide, question
from graylift.rollout.measures import wanted_metrics
from graylift.rollout.moves import credit, evolve
from graylift.rollout.routes import kept, routes, split_of, wanted
from graylift.rollout.services import DRAIN_S, partings, retire, settle

__all__ = [
    "DRAIN_S",
    "ROLLBACK_WITHIN_S",
    "Obeyed",
    "credit",
    "decide",
    "evolve",
    "kept",
    "obey",
    "partings",
    "question",
    "retire",
    "routes",
    "settle",
    "split_of",
    "stage_ahead",
    "wanted",
    "wanted_metrics",
    "weights_of",
]
