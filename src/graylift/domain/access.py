"""Who may use the control plane from elsewhere: named tokens, of which only a hash is kept, each with a rank."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Rank(Enum):
    """What a person may do; each may also do what those above it here may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, needed: Rank) -> bool:
        ranks = list(Rank)
        return ranks.index(self) >= ranks.index(needed)


@dataclass(frozen=True, slots=True)
class Token:
    """name: whose it is, as the events say. digest: see `digest_of`. Times are epoch seconds; None: never."""

    name: str
    rank: Rank
    digest: str
    created_s: float
    expires_s: float | None = None
    revoked_s: float | None = None

    def is_good(self, now: float) -> bool:
        return self.revoked_s is None and (self.expires_s is None or now < self.expires_s)


def digest_of(secret: str) -> str:
    """SHA-256, in hex. No slow hash is needed: a secret of 256 random bits cannot be tried out."""
    return hashlib.sha256(secret.encode()).hexdigest()


def token_of(secret: str, tokens: Iterable[Token]) -> Token | None:
    """The token with this secret, good or not. Takes as long whichever it is, and if there is none."""
    digest, found = digest_of(secret), None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            found = token
    return found
