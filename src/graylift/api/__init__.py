"""The HTTP API: what is stored, as JSON; commands and scores, taken in. It reads the store and appends to it.

It is blind to the controller and the gateway: scores and pushed metrics go through ports. `cli/wiring.py` gives it
those and serves it in the controller's process. It is bound to loopback unless somebody asks for more, since whoever
reaches it may command releases.
"""

from graylift.api.app import create_app
from graylift.api.server import ApiServer

__all__ = ["ApiServer", "create_app"]
