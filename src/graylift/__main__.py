"""`python -m graylift` is `graylift`."""

from __future__ import annotations

from graylift.cli.main import app

app(prog_name="graylift")
