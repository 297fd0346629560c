"""POST to systems of other people: bounded, signed if a key is named, never redirected, and with no secret in any word.

What may be secret is an address or a key, so no text of the client library is shown: it may quote them. Called by
`notifier` and `http_gates`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable

import aiohttp

from graylift.domain.notices import Address, Secret

MAX_ANSWER_BYTES = 64 * 1024


class Unanswered(Exception):
    """Why there is no answer, in words for people. Mapped by the two modules that post."""


class Posts:
    """Connections to them. `close` ends them."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self, address: Address, value: object, timeout_s: float, *, signing_key: Secret | None = None, key: str = ""
    ) -> tuple[int, bytes]:
        """The status of the answer and the first of it. `value` goes as JSON; `key` as Idempotency-Key."""
        url = value_of(address) if isinstance(address, Secret) else address
        body = json.dumps(value, ensure_ascii=False).encode()
        headers = {"content-type": "application/json", "user-agent": "graylift"}
        if key:
            headers["idempotency-key"] = key
        if signing_key is not None:
            headers |= signature(value_of(signing_key).encode(), int(self._now()), body)
        if self._session is None:
            self._session = aiohttp.ClientSession()
        try:
            async with self._session.post(
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                return response.status, await response.content.read(MAX_ANSWER_BYTES)
        except TimeoutError:
            raise Unanswered(f"it did not answer within {timeout_s:g} s") from None
        except aiohttp.ClientConnectorError as error:
            raise Unanswered(f"it cannot be reached: {error.os_error.strerror or 'no connection'}") from None
        except (aiohttp.ClientError, ValueError) as error:
            raise Unanswered(f"it cannot be asked: {type(error).__name__}") from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def signature(key: bytes, timestamp: int, body: bytes) -> dict[str, str]:
    """The two headers that show who sent `body`, and when."""
    mac = hmac.new(key, f"{timestamp}.".encode() + body, hashlib.sha256)
    return {"x-graylift-timestamp": str(timestamp), "x-graylift-signature": f"sha256={mac.hexdigest()}"}


def value_of(secret: Secret) -> str:
    """Unanswered, naming the variable, if it is not set."""
    value = os.environ.get(secret.env, "").strip()
    if not value:
        raise Unanswered(f"the environment variable {secret.env} is not set where the controller runs")
    return value
