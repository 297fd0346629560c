"""Who is told and who is asked: `spec.notify` -> `Receiver`s, `spec.stages[].confirm` -> `Gate`s.

A secret stands in an environment variable that the file names. Its name begins so that a file can name no secret that
was not meant for Graylift: whoever writes the file also chooses where it is sent. Called by `release` and `stages`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

from graylift.domain.notices import TOLD, Address, Email, Gate, Receiver, Secret, Slack, Webhook
from graylift.domain.release import Phase
from graylift.spec.document import Mapping, Node
from graylift.spec.fields import Fields, Read, Wrong
from graylift.spec.shapes import EMAIL, GATE, NOTIFY, SECRET
from graylift.spec.values import between, choice, duration, each_of, matching, text

OTHER_KINDS = ("CHECK", "VERDICT", "GATE", "APPROVED", "REFUSED", "STABLE_SICK", "STABLE_WELL", "EVIDENCE_LOST")
KINDS = (*(phase.value for phase in Phase), *OTHER_KINDS, "TROUBLE", "MENDED")
"""The kinds of event that a receiver may want."""

_env = matching(
    "the name of a variable for secrets of Graylift",
    r"GRAYLIFT_SECRET_[A-Z0-9_]{1,60}",
    "begin it with GRAYLIFT_SECRET_, as in GRAYLIFT_SECRET_SLACK: a release file can name no other",
)
_gate_name = matching("a gate's name", r"[A-Za-z0-9](?:[A-Za-z0-9._ -]{0,58}[A-Za-z0-9])?", "write change-window")
_mailbox = matching("a mail address", r"[^\s@,<>\"]{1,64}@[A-Za-z0-9.-]{1,190}", "write ops@example.com")
_server = matching(
    "a mail server", r"(?:[A-Za-z0-9.-]{1,250}):[1-9][0-9]{1,4}", "write host:port, as in smtp.example.com:587"
)
_timeout = between(0.1, 60, "write a duration from 100ms to 1m", duration)
_kinds = each_of("the kinds of event, as in [PROMOTED, ROLLING_BACK]", choice({kind: kind for kind in KINDS}))


def read_notify(spec: Fields) -> tuple[Receiver, ...]:
    if not spec.has("notify"):
        return ()
    return tuple(one.value for one in spec.each("notify", NOTIFY, _read_receiver).value)


def _read_receiver(fields: Fields) -> Receiver:
    kinds = [kind for kind in ("webhook", "slack", "email") if fields.has(kind)]
    for other in kinds[1:]:
        fields.refuse(other, f"`{other}` has no place beside `{kinds[0]}`", "make two entries of them")
    on = fields.read_or(TOLD, "on", _kinds)
    if kinds[:1] != ["webhook"]:
        fields.refuse("signingKey", "only a `webhook` is signed", "delete it")
    match kinds[:1]:
        case ["slack"]:
            return Slack(fields.nested("slack", SECRET, _read_secret).value, on.value)
        case ["email"]:
            return replace(fields.nested("email", EMAIL, _read_email).value, on=on.value)
        case _:
            url, key = fields.read("webhook", partial(_read_address, fields)), _read_key(fields)
            return Webhook(url.value, key.value, on.value)


def read_gates(fields: Fields) -> tuple[Gate, ...]:
    """The gates before a stage, each by a name of its own."""
    if not fields.has("confirm"):
        return ()
    gates = fields.each("confirm", GATE, _read_gate).value
    _demand_own_names(fields, gates)
    return tuple(gate.value for gate in gates)


def _read_gate(fields: Fields) -> Gate:
    name, url = fields.read("name", _gate_name), fields.read("url", partial(_read_address, fields))
    timeout = fields.read_or(10.0, "timeout", _timeout)
    return Gate(name.value, url.value, timeout.value, _read_key(fields).value)


def _demand_own_names(fields: Fields, gates: Sequence[Read[Gate]]) -> None:
    seen: set[str] = set()
    for gate in gates:
        for found in gate.found:
            if found.name in seen:
                fields.problems.add(gate.place, f"two gates of a stage are called `{found.name}`", "name them apart")
            seen.add(found.name)


def _read_email(fields: Fields) -> Email:
    to, sender = fields.read("to", each_of("[ops@example.com]", _mailbox)), fields.read("from", _mailbox)
    server = fields.read("server", _server)
    user = fields.read("user", text) if fields.has("password") else fields.read_or(None, "user", text)
    password = (
        fields.nested("password", SECRET, _read_secret)
        if fields.has("user")
        else fields.nested_or(None, "password", SECRET, _read_secret)
    )
    host, _, port = server.value.rpartition(":")
    if int(port) > 65535:
        raise Wrong(server.place, f"{port} is no port", "write host:port, as in smtp.example.com:587")
    return Email(to.value, sender.value, host, int(port), user.value, password.value)


def _read_key(fields: Fields) -> Read[Secret | None]:
    return fields.nested_or(None, "signingKey", SECRET, _read_secret)


def _read_secret(fields: Fields) -> Secret:
    return Secret(fields.read("env", _env).value)


def _read_address(fields: Fields, node: Node) -> Address:
    """A URL, or {env: NAME} of one that is a secret."""
    if isinstance(node, Mapping):
        return _read_secret(Fields(node, node.place, SECRET, fields.problems))
    url = text(node)
    cure = "write http(s)://host:port/path; an address with a secret in it as {env: GRAYLIFT_SECRET_...}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
    except ValueError as error:
        raise Wrong(node.place, "this is not the address of a web server", cure) from error
    if not usable:
        raise Wrong(node.place, "this is not the address of a web server", cure)
    if "@" in parts.netloc or parts.query or parts.fragment or parts.hostname == "hooks.slack.com":
        what = "this address holds what may be a secret, and everybody reads a release file"
        raise Wrong(node.place, what, "put it into an environment variable: {env: GRAYLIFT_SECRET_...}")
    return url
