"""Envoy's admin port, asked over HTTP. Foreign exceptions become GatewayError here."""

from __future__ import annotations

from typing import Any

import aiohttp
import orjson

from graylift.errors import GatewayError

_TIMEOUT = aiohttp.ClientTimeout(total=5.0)


class Admin:
    """The admin port at `address` (host:port)."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    async def ready(self) -> bool:
        """Does Envoy serve? False also while nothing answers."""
        try:
            status, _ = await self._ask("GET", "/ready")
        except GatewayError:
            return False
        return status == 200

    async def get(self, path: str) -> Any:
        """The JSON answer. GatewayError if there is none."""
        status, body = await self._ask("GET", path)
        if status != 200:
            raise GatewayError(f"Envoy's admin port {self._address} answered {path} with HTTP {status} instead of 200")
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as exc:
            raise GatewayError(f"Envoy's admin port {self._address} answered {path} with no valid JSON: {exc}") from exc

    async def post(self, path: str) -> None:
        status, _ = await self._ask("POST", path)
        if status != 200:
            raise GatewayError(f"Envoy's admin port {self._address} answered {path} with HTTP {status} instead of 200")

    async def counter(self, name: str) -> int:
        """The present value of one of Envoy's counters or gauges, 0 if it has none of that name."""
        answer = await self.get(f"/stats?format=json&filter=^{name.replace('.', '%5C.')}$")
        return sum(int(stat["value"]) for stat in answer["stats"] if stat.get("name") == name)

    async def close(self) -> None:
        """Ask no more. Whoever still holds this gets a GatewayError."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()

    async def _ask(self, method: str, path: str) -> tuple[int, bytes]:
        if self._is_closed:
            raise GatewayError(f"the Envoy of admin port {self._address} is gone")
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        try:
            async with self._session.request(method, f"http://{self._address}{path}") as answer:
                return answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise GatewayError(f"Envoy's admin port {self._address} does not answer {path}: {exc!r}") from exc
