"""The tree of a release file -> `ReleaseSpec`: its revisions, its routing and what concerns the file as a whole.

It reads no file; whether a file is there, a function that it is given says. Called by `loading`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from enum import Enum
from functools import partial
from pathlib import Path

from graylift.domain.spec import (
    GgufModel,
    JudgeSpec,
    LabelRule,
    OnFailure,
    OnnxModel,
    ReleaseSpec,
    RevisionSpec,
    RoutingSpec,
    ServingProtocol,
    Stage,
)
from graylift.domain.weights import Role
from graylift.spec import defaults, judge, shadow
from graylift.spec.checks import read_checks
from graylift.spec.fields import Fields, Read
from graylift.spec.headers import header, header_value
from graylift.spec.limits import read_limits
from graylift.spec.model import MissingFile, read_model
from graylift.spec.notify import read_notify
from graylift.spec.shapes import CHECKS, JUDGE, MATCH, METADATA, MODEL, REVISION, ROUTING, SPEC, STICKY
from graylift.spec.stages import read_stages
from graylift.spec.sticky import read_sticky
from graylift.spec.values import between, choice, duration, matching

API_VERSION = "graylift.dev/v1"

_service_name = matching(
    "a service name",
    r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?",
    "write up to 40 lower-case letters, digits and `-`, a letter or digit at both ends: file-type",
)
_revision_name = matching(
    "a revision name",
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,38}[A-Za-z0-9])?",
    "write up to 40 letters, digits, `-`, `_` and `.`, a letter or digit at both ends: v2, 2026-03-01",
)
_ready_within = between(1, 3600, "write a duration from 1s to 1h", duration)
_timeout = between(0.1, 3600, "write a duration from 100ms to 1h", duration)
_protocol = choice({protocol.value: protocol for protocol in ServingProtocol})


def read_release(root: Fields, base: Path, missing_file: MissingFile) -> ReleaseSpec:
    """Valid only if no problem was noted meanwhile; Reported if there is no value at all.

    `base`: the absolute folder that relative paths start from.
    """
    root.read("apiVersion", choice({API_VERSION: API_VERSION}))
    root.read("kind", choice({"Release": "Release"}))
    service = root.nested("metadata", METADATA, lambda fields: fields.read("name", _service_name).value)
    read = partial(_read_spec, service=service, base=base, missing_file=missing_file)
    spec = root.nested("spec", SPEC, read).value
    return dataclasses.replace(spec, digest=_digest(spec))


def _read_spec(fields: Fields, service: Read[str], base: Path, missing_file: MissingFile) -> ReleaseSpec:
    names: list[Read[str]] = []

    def read_revision(fields: Fields) -> RevisionSpec:
        names.append(fields.read("revision", _revision_name))
        ready_within = fields.read_or(defaults.READY_WITHIN_S, "readyWithin", _ready_within)
        model = fields.nested("model", MODEL, partial(read_model, base=base, missing_file=missing_file))
        if protocol.found == (ServingProtocol.OPENAI,) and any(isinstance(found, OnnxModel) for found in model.found):
            what = "an `onnx` model is served as open-inference, and clients of this service speak openai"
            cure = "write `gguf`, a language model, or name the server by `endpoint`: {endpoint: http://10.0.0.7:8000}"
            fields.problems.add(model.place, what, cure)
        if protocol.found == (ServingProtocol.OPEN_INFERENCE,) and any(isinstance(m, GgufModel) for m in model.found):
            what = "a `gguf` model is served as openai, and clients of this service speak open-inference"
            fields.problems.add(model.place, what, "write `protocol: openai`")
        return RevisionSpec(names[-1].value, model.value, ready_within.value)

    protocol = fields.read("protocol", _protocol)
    stable = fields.nested("stable", REVISION, read_revision)
    candidate = fields.nested("candidate", REVISION, read_revision)
    if len(names) == 2 and names[0].found and names[0].found == names[1].found:
        what = f"stable and candidate are both called `{names[0].value}`"
        fields.problems.add(names[1].place, what, "give each a name of its own, even if the model is the same")
    checks = fields.nested_or(
        defaults.PRE_RELEASE_CHECKS, "checks", CHECKS, partial(read_checks, base=base, missing_file=missing_file)
    )
    timeout_s = defaults.SILENCE_S if protocol.found == (ServingProtocol.OPENAI,) else defaults.TIMEOUT_S
    routing = fields.nested_or(
        RoutingSpec(timeout_s=timeout_s),
        "routing",
        ROUTING,
        partial(_read_routing, timeout_s=timeout_s, protocol=protocol),
    )
    spoken = protocol.value if protocol.found else ServingProtocol.OPEN_INFERENCE
    judging = fields.nested_or(judge.default_for(spoken), "judge", JUDGE, partial(judge.read_judge, spoken))
    on_failure = fields.read_or(OnFailure.ROLLBACK, "onFailure", choice({member.value: member for member in OnFailure}))
    notify = read_notify(fields)
    stages = read_stages(fields, judging.value.checks if judging.found else None)
    return ReleaseSpec(
        service=service.value,
        protocol=protocol.value,
        stable=stable.value,
        candidate=candidate.value,
        routing=routing.value,
        stages=stages,
        judge=_with_shadow(fields, judging, stages),
        on_failure=on_failure.value,
        digest="",
        checks=checks.value,
        notify=notify,
    )


def _with_shadow(fields: Fields, judging: Read[JudgeSpec], stages: tuple[Stage, ...]) -> JudgeSpec:
    """With a judge of pairs exactly where there are some."""
    spec = judging.value
    if any(stage.shadow is not None for stage in stages):
        return dataclasses.replace(spec, shadow=spec.shadow or shadow.DEFAULT)
    if spec.shadow is not None:
        what = "`judge.shadow` judges nothing: no stage shadows any request"
        fields.problems.add(judging.place, what, "add a stage before the first weight: {shadow: 10%, observe: 10m}")
    return spec


def _read_routing(fields: Fields, timeout_s: float, protocol: Read[ServingProtocol]) -> RoutingSpec:
    sticky = fields.nested_or(None, "sticky", STICKY, partial(read_sticky, protocol=protocol))
    rules = fields.each("match", MATCH, _read_rule) if fields.has("match") else Read(fields.place, ((),))
    timeout = fields.read_or(timeout_s, "timeout", _timeout)
    limits = read_limits(fields, protocol)
    first: dict[tuple[str, str], Read[LabelRule]] = {}
    for rule in rules.value:
        for value in rule.found:
            if (other := first.setdefault((value.header, value.value), rule)) is not rule:
                what = f"line {other.place.line} sends the same requests somewhere already; the first rule wins"
                fields.problems.add(rule.place, what, "delete one of the two rules")
    return RoutingSpec(sticky.value, tuple(rule.value for rule in rules.value), timeout.value, limits)


def _read_rule(fields: Fields) -> LabelRule:
    name = fields.read("header", header)
    value = fields.read("exact", header_value)
    to = fields.read("to", choice({role.value: role for role in Role}))
    return LabelRule(name.value, value.value, to.value)


def _digest(spec: ReleaseSpec) -> str:
    """sha256 (hex) of the meaning: of the values, defaults included, in one fixed form."""

    def plain(value: object) -> object:
        assert isinstance(value, Enum)
        return value.value

    meaning = {"apiVersion": API_VERSION, "spec": dataclasses.asdict(spec)}
    return hashlib.sha256(json.dumps(meaning, sort_keys=True, default=plain).encode()).hexdigest()
