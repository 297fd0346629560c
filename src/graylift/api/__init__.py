"""The control plane's HTTP: the API under /v1 and the page for people. It reads the store and appends commands; who
carries them out is the controller's business, in this process or another.

    records    what it needs of the store
    steering   a command put before the controller, and which of them would do something
    board      what a page shows of a release, as sections of HTML; made once for everybody who looks
    stream     the sections that changed, to every open page (server-sent events)
    guard      what every request must be before anything reads it, and what every answer carries
    app        the routes
"""
