"""The model as clients see it: an engine under the names that the service uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graylift.domain.engine import Interface, TensorSpec
from graylift.domain.spec import TensorName
from graylift.engine.runner import Runner, check_inputs
from graylift.errors import EngineError
from graylift.protocols.datatypes import Tensor


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A runner whose tensors may be renamed; a `Runner` itself.

    interface: with the served names
    platform:  what runs it, as the metadata say it
    """

    runner: Runner
    platform: str
    interface: Interface
    own_inputs: Mapping[str, str]
    served_outputs: Mapping[str, str]

    def infer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `Runner.infer`; messages name the tensors as they are served."""
        check_inputs(self.interface, inputs)
        outputs = self.runner.infer({self.own_inputs[name]: tensor for name, tensor in inputs.items()})
        return {self.served_outputs[name]: tensor for name, tensor in outputs.items()}

    def close(self) -> None:
        self.runner.close()


def served_model(
    runner: Runner, platform: str, inputs: Sequence[TensorName], outputs: Sequence[TensorName]
) -> ServedModel:
    """Tensors that are not renamed keep their own name. EngineError if a renaming does not fit the model."""
    served_inputs = _served_names("input", runner.interface.inputs, inputs)
    served_outputs = _served_names("output", runner.interface.outputs, outputs)
    return ServedModel(
        runner=runner,
        platform=platform,
        interface=Interface(
            inputs=tuple(replace(spec, name=served_inputs[spec.name]) for spec in runner.interface.inputs),
            outputs=tuple(replace(spec, name=served_outputs[spec.name]) for spec in runner.interface.outputs),
        ),
        own_inputs={served: own for own, served in served_inputs.items()},
        served_outputs=served_outputs,
    )


def _served_names(kind: str, specs: Sequence[TensorSpec], renamings: Sequence[TensorName]) -> dict[str, str]:
    """Own name -> served name, for all tensors of one side."""
    names = {spec.name: spec.name for spec in specs}
    for renaming in renamings:
        if renaming.own not in names:
            raise EngineError(
                f"--{kind} {renaming.served}={renaming.own}: the model has no {kind} {renaming.own!r}; "
                f"it has {', '.join(spec.name for spec in specs)}"
            )
        names[renaming.own] = renaming.served
    if len(set(names.values())) < len(names):
        raise EngineError(f"two {kind}s would be served under one name: {', '.join(sorted(names.values()))}")
    return names
