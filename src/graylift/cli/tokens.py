"""`graylift token`: who may use the API, made, listed and revoked by whoever may write the state directory."""

from __future__ import annotations

import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from graylift.cli.desk import open_store
from graylift.cli.installation import installation_from
from graylift.domain.access import Rank, Token, digest_of
from graylift.errors import CommandRefused

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


def create(name: str, rank: Rank, days: float | None, state: Path | None) -> None:
    """Prints the token, which is stored nowhere."""
    from graylift.api.door import new_secret

    if _NAME.fullmatch(name) is None:
        raise CommandRefused(f"a name has up to 64 letters, digits and . _ @ -, as in ana; not {name[:80]!r}")
    now, secret = time.time(), new_secret()
    token = Token(name, rank, digest_of(secret), now, None if days is None else now + days * 86400)
    with open_store(installation_from(state), make=True) as store:
        store.add_token(token)
    sys.stdout.write(secret + "\n")


def show(state: Path | None) -> None:
    with open_store(installation_from(state)) as store:
        for token in store.tokens():
            good = "good" if token.is_good(time.time()) else "revoked" if token.revoked_s is not None else "expired"
            until = (
                "for ever" if token.expires_s is None else f"until {datetime.fromtimestamp(token.expires_s, UTC):%F}"
            )
            sys.stdout.write(f"{token.name}  {token.rank.value}  {good}  {until}\n")


def revoke(name: str, state: Path | None) -> None:
    with open_store(installation_from(state)) as store:
        store.revoke_token(name, time.time())
    sys.stdout.write(f"{name}'s token is revoked\n")
