"""The `model` of one side of a release file -> `OnnxModel` or `EndpointModel`. Called by `release`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from graylift.domain.engine import Precision, Profile, ProfileShape, Runtime
from graylift.domain.spec import EndpointModel, OnnxModel, Serving, TensorName
from graylift.spec import defaults
from graylift.spec.document import Node, Scalar
from graylift.spec.fields import Fields, Read, Wrong, nearest
from graylift.spec.profiles import checked
from graylift.spec.settings import SETTINGS, Setting
from graylift.spec.shapes import PROFILE, RUNTIMES
from graylift.spec.values import between, choice, duration, each_of, integer, matching, quantity, text

MissingFile = Callable[[Path], str | None]
"""Why there is no readable file at a path, None if there is one."""

_url = matching(
    "an endpoint",
    r"http://[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?:[0-9]{1,5}",
    "write http://host:port, with a name or an IPv4 address, and no path: http://10.0.0.7:8000",
)
_runtime = choice(
    RUNTIMES,
    {"pytorch": "release an ONNX file, and compare it with PyTorch by `graylift bench model.pt2 model.onnx`"},
)
_precision = choice({precision.value: precision for precision in Precision})
_max_delay = between(0, 1, "write a duration from 0s to 1s", duration)
_sizes = each_of("sizes, one for each dimension: [1, 8]", integer(1, 999_999_999))
_PROFILE_EXAMPLE = "{input_ids: {min: [1, 8], opt: [8, 128], max: [32, 512]}}"


def read_model(fields: Fields, base: Path, missing_file: MissingFile) -> OnnxModel | EndpointModel:
    if fields.has("endpoint"):
        for name in (
            "onnx",
            "runtime",
            "threads",
            "precision",
            "profiles",
            "calibration",
            "settings",
            "inputs",
            "outputs",
            "contexts",
            "maxBatchSize",
            "maxQueueDelay",
            "maxQueue",
        ):
            fields.refuse(
                name, f"`{name}` has no place beside `endpoint`, a server that runs already", "delete one of them"
            )
        return EndpointModel(fields.read("endpoint", _url).value)
    file = partial(file_path, base=base, missing_file=missing_file)
    onnx = fields.read("onnx", file)
    runtime = fields.read_or(Runtime.ONNXRUNTIME, "runtime", _runtime)
    threads = fields.read_or(defaults.THREADS, "threads", integer(1, 256))
    precision = fields.read_or(Precision.FP32, "precision", _precision)
    profiles = fields.tables("profiles", _read_shape) if fields.has("profiles") else Read(fields.place, ((),))
    calibration = fields.read_or(None, "calibration", file)
    if precision.found:
        _demand_calibration(fields, precision)
    settings = _read_settings(fields, runtime)
    contexts = fields.read_or(defaults.SERVING.contexts, "contexts", integer(1, 256))
    max_batch = fields.read_or(defaults.SERVING.max_batch, "maxBatchSize", integer(1, 65_536))
    max_delay = fields.read_or(defaults.SERVING.max_queue_delay_s, "maxQueueDelay", _max_delay)
    max_queue = fields.read_or(defaults.SERVING.max_queue, "maxQueue", integer(0, 100_000))
    if max_batch.found == (1,):
        fields.refuse(
            "maxQueueDelay",
            "nobody waits for company where each request runs alone",
            "delete it, or write a `maxBatchSize` above 1",
        )
    inputs = _read_names(fields, "inputs")
    outputs = _read_names(fields, "outputs")
    return OnnxModel(
        onnx.value,
        runtime.value,
        threads.value,
        precision.value,
        _profiles(fields, profiles.value),
        calibration.value,
        inputs.value,
        outputs.value,
        Serving(contexts.value, max_batch.value, max_delay.value, max_queue.value),
        settings.value,
    )


def file_path(node: Node, base: Path, missing_file: MissingFile) -> str:
    """The absolute path of a file that is there."""
    path = base / text(node)
    if why := missing_file(path):
        raise Wrong(node.place, why, f"relative paths start from the folder of this file, {base}")
    return str(path)


def _demand_calibration(fields: Fields, precision: Read[Precision]) -> None:
    """Ranges of activations are found in real data, for int8 and for nothing else."""
    if precision.value is not Precision.INT8:
        fields.refuse(
            "calibration",
            f"`calibration` has no meaning at {precision.value.value}: only int8 finds its ranges with it",
            "delete it, or write precision: int8",
        )
    elif not fields.has("calibration"):
        fields.problems.add(
            precision.place,
            "int8 finds the ranges of its activations with real inputs, and none are named",
            "add `calibration`: an .npz with one array for each input, samples along the first axis; "
            "or write int8-dynamic, which needs none",
        )


def _read_shape(key: Scalar, node: Node, fields: Fields) -> ProfileShape:
    """min, opt and max of the input that `key` names."""
    shape = Fields(node, key.place, PROFILE, fields.problems)
    low, best, high = (shape.read(name, _sizes) for name in PROFILE.fields)
    try:
        return checked(ProfileShape(text(key), low.value, best.value, high.value))
    except ValueError as exc:
        raise Wrong(
            node.place, str(exc), "write min, opt and max as in {min: [1, 8], opt: [8, 128], max: [32, 512]}"
        ) from exc


def _profiles(fields: Fields, entries: Sequence[Read[tuple[Read[ProfileShape], ...]]]) -> tuple[Profile, ...]:
    """Each profile with its shapes ascending by the input's name; all name the same inputs."""
    profiles: list[Profile] = []
    for entry in entries:
        shapes = sorted((shape.value for shape in entry.value), key=lambda shape: shape.input)
        names = [shape.input for shape in shapes]
        if not names:
            fields.problems.add(
                entry.place, "this profile has no shapes", f"give it one for each input: {_PROFILE_EXAMPLE}"
            )
        elif profiles and names != (first := [shape.input for shape in profiles[0].shapes]):
            fields.problems.add(
                entry.place,
                f"this profile is about {', '.join(names)}, and the first one about {', '.join(first)}",
                "name the same inputs in each profile",
            )
        profiles.append(Profile(tuple(shapes)))
    return tuple(profiles)


def _read_settings(fields: Fields, runtime: Read[Runtime]) -> Read[tuple[tuple[str, str], ...]]:
    """(name, value) of each, ascending by name; of which there are, the runtime decides."""

    def read_setting(key: Scalar, node: Node) -> tuple[str, str]:
        known = SETTINGS[runtime.value]
        if key.text not in known:
            what = f"`{key.text}` is no setting of {runtime.value.value}"
            raise Wrong(key.place, what, nearest(key.text, known) if known else "delete it: that runtime has none")
        return key.text, written(known[key.text], node)

    def written(setting: Setting, node: Node) -> str:
        return quantity("a value", partial(_matched, setting))(node)

    entries = fields.table("settings", read_setting)
    complete = bool(entries.found) and all(entry.found for entry in entries.value)
    return Read(entries.place, (tuple(sorted(entry.value for entry in entries.value)),) if complete else ())


def _matched(setting: Setting, value: str) -> str:
    if not re.fullmatch(setting.pattern, value, re.ASCII):
        raise ValueError(f"write {setting.looks}")
    return value


def _read_names(fields: Fields, name: str) -> Read[tuple[TensorName, ...]]:
    """Renamings of tensors, ordered by the served name."""
    names: list[TensorName] = []

    def read_name(key: Scalar, node: Node) -> None:
        tensor = TensorName(served=text(key), own=text(node))
        if any(tensor.own == other.own for other in names):
            raise Wrong(node.place, f"`{tensor.own}` is served under two names", "keep one of them")
        names.append(tensor)

    entries = fields.table(name, read_name)
    complete = bool(entries.found) and all(entry.found for entry in entries.value)
    return Read(entries.place, (tuple(sorted(names, key=lambda tensor: tensor.served)),) if complete else ())
