"""The loop: read, judge, decide, store, apply, verify. Level-triggered: a crash anywhere is mended by running it again.

`plan` says what one look changes (pure), `judging` asks the judge, `controller` reads, stores and acts; `checklists`
owns the running pre-release checks, `gatekeeper` asks gates, `courier` sends what is to be told, `troubles` tells what
goes wrong at a port once. It knows the ports and nothing of what implements them. `cli` wires and runs it.
"""

from graylift.controller.controller import Controller
from graylift.controller.plan import Plan

__all__ = ["Controller", "Plan"]
