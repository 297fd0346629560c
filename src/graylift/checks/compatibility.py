"""The compatibility check, before a long build: does the runtime know the model, and would its engine run here?

Looked at are opsets, operators by node, profiles against the graph, versions, driver and GPU. It runs in a process of
its own, as the build does, for a runtime's native code may crash. Called by `checklist` before `build`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from graylift.checks.build import engine_spec_of, source_of
from graylift.domain.release import CheckOutcome, CheckResult
from graylift.domain.spec import EndpointModel, GgufModel, OnnxModel, RevisionSpec
from graylift.domain.weights import Role
from graylift.engine.child import CHECK, check_engine
from graylift.errors import EngineError


async def check_compatibility(role: Role, spec: RevisionSpec, command: Sequence[str] = CHECK) -> CheckResult:
    """FAIL, with every operator, node and version that does not fit, if the side should not even be built."""
    check = f"compatibility {role.value}"
    match spec.model:
        case EndpointModel(url):
            sentence = f"{spec.name} runs at {url} already: nothing is built"
            return CheckResult(check, CheckOutcome.SKIPPED, sentence)
        case OnnxModel() | GgufModel() as model:
            try:
                facts = await check_engine(engine_spec_of(model), command=command)
            except EngineError as error:
                sentence = f"{spec.name} does not fit its runtime {model.runtime.value} on this machine: {error}"
                return CheckResult(check, CheckOutcome.FAIL, sentence, (f"from {source_of(model)}",))
            known = "every operator of" if isinstance(model, OnnxModel) else "the file of"
            sentence = f"{model.runtime.value} knows {known} {spec.name}, and its engine runs on this machine"
            return CheckResult(check, CheckOutcome.PASS, sentence, facts)
        case _:
            assert_never(spec.model)
