"""The model as clients see it: an engine under the names that the service uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graylift.domain.engine import Interface, Profile, TensorSpec
from graylift.domain.spec import TensorName
from graylift.engine.runner import Runner, check_inputs
from graylift.errors import EngineError
from graylift.protocols.datatypes import Tensor


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A runner whose tensors may be renamed; a `Runner` itself.

    interface: with the served names
    platform:  what runs it, as the metadata say it
    profiles:  with the served names, too; requests outside all of them are refused
    """

    runner: Runner
    platform: str
    interface: Interface
    own_inputs: Mapping[str, str]
    served_outputs: Mapping[str, str]
    profiles: tuple[Profile, ...] = ()

    def infer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `Runner.infer`. Who asks for a client has checked the inputs by the served names; a run for several may
        be larger than each of them."""
        if self.profiles:
            check_inputs(self.interface, inputs, self.profiles)
        outputs = self.runner.infer({self.own_inputs[name]: tensor for name, tensor in inputs.items()})
        return {self.served_outputs[name]: tensor for name, tensor in outputs.items()}

    def close(self) -> None:
        self.runner.close()


def served_model(
    runner: Runner,
    platform: str,
    inputs: Sequence[TensorName],
    outputs: Sequence[TensorName],
    profiles: Sequence[Profile] = (),
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
        profiles=tuple(
            Profile(tuple(replace(shape, input=served_inputs[shape.input]) for shape in profile.shapes))
            for profile in profiles
        ),
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
