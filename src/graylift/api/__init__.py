"""The control plane's HTTP: the API under /v1, and the page for people. It reads the store and appends to it.

    releases, scores, bodies   the API: what is stored, as JSON; commands and scores, taken in
    steering                   a command put before the controller, and which of them would do something
    pages, board, stream       the pages; what they show, as sections of HTML; the sections that changed, to every page
    exposition                 what is known, for Prometheus
    door                       who comes in: tokens, and what their rank allows
    guard                      what every request must be before anything reads it, and what every answer carries
    app, server                the routes put together, and served
    records                    what it needs of the store

It is blind to the controller and the gateway: commands go through the store, scores and pushed metrics through ports.
`cli/wiring.py` gives it those and serves it in the controller's process. It is bound to loopback unless somebody asks
for more, since whoever reaches it may command releases.
"""

from graylift.api.app import create_app, is_loopback
from graylift.api.server import ApiServer

__all__ = ["ApiServer", "create_app", "is_loopback"]
