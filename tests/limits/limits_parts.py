"""Budgets and reservations for the tests of this folder."""

from __future__ import annotations

from graylift.domain.limits import Budget, Charge, Reservation, Unit

TOKENS = Budget("s|all|tokens", "all", Unit.TOKENS, 600, 60.0)
REQUESTS = Budget("s|all|requests", "all", Unit.REQUESTS, 5, 1.0)
PLACES = Budget("s|all|concurrent", "all", Unit.CONCURRENT, 3, 40.0)


def asking(name: str, *, tokens: int | None = None, requests: bool = False, place: bool = False) -> Reservation:
    charges = (
        *(() if tokens is None else (Charge(TOKENS, tokens),)),
        *((Charge(REQUESTS, 1),) if requests else ()),
        *((Charge(PLACES, 1),) if place else ()),
    )
    return Reservation(name, charges)
