"""Budgets in a Valkey that several gateways share. Each charge and each settlement is one step there, for all of them.

The client is an extra (`graylift[valkey]`), imported when such budgets are opened.
"""

from __future__ import annotations

import pkgutil
from importlib.util import find_spec
from typing import Any

from graylift.domain.limits import Admission, Reservation
from graylift.errors import GatewayError
from graylift.limits.bucket import admission

PREFIX = "graylift:budget:"
ANSWERS_WITHIN_S = 0.2
"""Sooner than Envoy gives the agent up."""
CONNECTIONS = 64


class ValkeyBudgets:
    """See `limiter.Budgets`. `url`: valkey://[USER:PASSWORD@]HOST:PORT[/NUMBER], valkeys:// with TLS."""

    def __init__(self, url: str) -> None:
        if find_spec("valkey") is None:
            raise GatewayError("shared limits need Valkey's client: pip install 'graylift[valkey]'")
        import valkey.asyncio

        client: Any = valkey.asyncio
        script = pkgutil.get_data("graylift.gateway", "valkey_budgets.lua")
        assert script is not None
        try:
            pool = client.BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS,
                timeout=ANSWERS_WITHIN_S,
                socket_timeout=ANSWERS_WITHIN_S,
                socket_connect_timeout=ANSWERS_WITHIN_S,
            )
        except ValueError as exc:  # without the address, which may hold a password
            raise GatewayError("the limits' store is no address of a Valkey: write valkey://HOST:PORT") from exc
        self._client = client.Valkey.from_pool(pool)
        self._run = self._client.register_script(script)

    async def reserve(self, reservation: Reservation) -> Admission:
        granted, *left = await self._step("reserve", reservation, None)
        return admission(reservation.charges, [float(one) for one in left], is_granted=granted == 1)

    async def settle(self, reservation: Reservation, used_tokens: int | None) -> None:
        await self._step("settle", reservation, used_tokens)

    async def close(self) -> None:
        await self._client.aclose()

    async def _step(self, what: str, reservation: Reservation, used_tokens: int | None) -> list[Any]:
        from valkey.exceptions import ValkeyError

        charges = reservation.charges
        arguments = [what, reservation.id, "" if used_tokens is None else used_tokens]
        for charge in charges:
            budget = charge.budget
            arguments += [budget.unit.value, budget.limit, budget.per_s, charge.amount]
        try:
            return await self._run(keys=[PREFIX + charge.budget.name for charge in charges], args=arguments)
        except (ValkeyError, OSError) as exc:
            raise GatewayError(f"the limits' store does not answer: {type(exc).__name__}") from exc
