"""Does a routing table hold together? Asked by `files.py` before anything is written. It knows nothing of Envoy."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import assert_never

from graylift.domain.limits import LimitRule
from graylift.domain.routing import Backend, RoutingTable, ServiceRoutes, ShadowRoutes
from graylift.domain.spec import ServingProtocol, Sticky, StickyBy

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SALT = re.compile(r"[A-Za-z0-9._-]+")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_HEADER = re.compile(r"[a-z0-9][a-z0-9_-]*")
_METHOD = re.compile(r"[A-Z]+")
_COOKIE = re.compile(r"[A-Za-z0-9_-]+")
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(?P<port>[0-9]{1,5})")


def problems(table: RoutingTable) -> Iterator[str]:
    """Everything that is inconsistent in the table, each in one sentence; nothing if it can be served."""
    if table.version < 1:
        yield f"its version is {table.version}, expected 1 or more"
    for name, count in Counter(service.service for service in table.services).items():
        if count > 1:
            yield f"service {name!r} stands there {count} times"
    for service in table.services:
        for problem in _service_problems(service):
            yield f"service {service.service!r}: {problem}"
    revisions = (backend.revision_id for service in table.services for backend in backends(service))
    for revision_id, count in Counter(revisions).items():
        if count > 1:
            yield f"revision {revision_id!r} stands there {count} times; it has one service and one role"


def _service_problems(service: ServiceRoutes) -> Iterator[str]:
    if not _NAME.fullmatch(service.service):
        yield "its name does not fit into a path; use letters, digits, '.', '_' and '-'"
    for backend in backends(service):
        if not _NAME.fullmatch(backend.revision_id):
            yield f"revision id {backend.revision_id!r} must be made of letters, digits, '.', '_' and '-'"
        address = _ADDRESS.fullmatch(backend.address)
        if address is None or not 0 < int(address["port"]) < 65_536:
            yield f"address {backend.address!r} of {backend.revision_id} is not host:port"
    if service.candidate is None and service.weights.candidate > 0:
        yield f"candidate weight {service.weights} without a candidate"
    if service.shadow is not None:
        yield from _shadow_problems(service, service.shadow)
    if service.sticky is not None:
        yield from _sticky_problems(service.sticky, service.protocol)
        if not _SALT.fullmatch(service.salt):
            yield f"salt {service.salt!r} must be made of letters, digits, '.', '_' and '-'"
    for rule in service.match:
        if not _HEADER.fullmatch(rule.header.lower()):
            yield f"header {rule.header!r} of a label rule is no header name"
        if not rule.value:
            yield f"the label rule on header {rule.header!r} has no value"
    for limit in () if service.limits is None else service.limits.rules:
        yield from _limit_problems(limit)
    if not service.split:
        yield "its split has no name"
    if not 0 < service.timeout_s < float("inf"):
        yield f"its timeout is {service.timeout_s} s, expected more than 0"


def _sticky_problems(sticky: Sticky, protocol: ServingProtocol) -> Iterator[str]:
    match sticky.by:
        case StickyBy.HEADER:
            if not _HEADER.fullmatch((sticky.name or "").lower()):
                yield f"sticky header {sticky.name!r} is no header name"
        case StickyBy.COOKIE:
            if not _COOKIE.fullmatch(sticky.name or ""):
                yield f"sticky cookie {sticky.name!r} must be named by letters, digits, '_' and '-'"
        case StickyBy.USER | StickyBy.CONVERSATION:
            if protocol is not ServingProtocol.OPENAI:
                yield f"a body of {protocol.value} has no {sticky.by.value} to stay with"
        case _:
            assert_never(sticky.by)


def _limit_problems(rule: LimitRule) -> Iterator[str]:
    for header in (rule.key_header, None if rule.label is None else rule.label[0]):
        if header is not None and not _HEADER.fullmatch(header.lower()):
            yield f"header {header!r} of a limit is no header name"
    if rule.path is not None and not _PATH.fullmatch(rule.path):
        yield f"path {rule.path!r} of a limit is no path"
    quotas = (rule.requests, rule.tokens)
    if any(quota is not None and not (quota.amount > 0 and quota.per_s > 0) for quota in quotas):
        yield f"the limit for {rule.scope} has an amount or a time of 0"
    if quotas == (None, None) and not rule.concurrent:
        yield f"the limit for {rule.scope} limits nothing"


def _shadow_problems(service: ServiceRoutes, shadow: ShadowRoutes) -> Iterator[str]:
    if service.candidate is None:
        yield "a shadow without a candidate"
    if service.weights.candidate > 0:
        yield f"a shadow beside a candidate weight of {service.weights}; a shadowed candidate has no users"
    for method in shadow.requests.methods:
        if not _METHOD.fullmatch(method):
            yield f"method {method!r} of its shadow is none of HTTP"
    for rule in shadow.requests.match:
        if not _HEADER.fullmatch(rule.header.lower()):
            yield f"header {rule.header!r} of its shadow is no header name"


def backends(service: ServiceRoutes) -> tuple[Backend, ...]:
    """All servers of a service, in any role."""
    candidate = () if service.candidate is None else (service.candidate,)
    return (service.stable, *candidate, *service.draining)
