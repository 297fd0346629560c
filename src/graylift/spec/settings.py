"""What may be set of a runtime beside precision, threads and profiles: its names, and how their values are written.

One list for the release file, for `graylift build --set` and for the engines: a text that passes here, `engine/`
understands. Called by `model`, by the commands, by the build process and by the vendors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graylift.domain.engine import Runtime


@dataclass(frozen=True, slots=True)
class Setting:
    """looks: how a value is written, for messages. pattern: what the whole of it matches"""

    looks: str
    pattern: str


_WORKSPACE = Setting("a size, as in 4GiB", r"\d{1,15}(?:B|kB|MB|GB|KiB|MiB|GiB)")
_OPTIMIZATION_LEVEL = Setting("0 to 5", "[0-5]")

SETTINGS: Mapping[Runtime, Mapping[str, Setting]] = {
    Runtime.ONNXRUNTIME: {"provider": Setting("cpu, cuda or openvino", "cpu|cuda|openvino")},
    Runtime.OPENVINO: {},
    Runtime.TENSORRT: {
        "workspace": _WORKSPACE,
        "optimizationLevel": _OPTIMIZATION_LEVEL,
        "versionCompatible": Setting("true or false", "true|false"),
        "hardwareCompatibility": Setting(
            "none, same-compute-capability or ampere-plus", "none|same-compute-capability|ampere-plus"
        ),
    },
    Runtime.TENSORRT_RTX: {
        "workspace": _WORKSPACE,
        "optimizationLevel": _OPTIMIZATION_LEVEL,
        "computeCapability": Setting("one or several, as in 8.6,8.9", r"\d{1,2}\.\d(?:,\d{1,2}\.\d)*"),
    },
    Runtime.PYTORCH: {},
}


def settings_from_texts(runtime: Runtime, texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(name, value) of each `NAME=VALUE`, ascending by name. ValueError with the cure for one that cannot be."""
    settings: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ValueError(f"{text!r} is no setting: write NAME=VALUE; {known_settings(runtime)}")
        if name in settings:
            raise ValueError(f"{name} is set twice, to {settings[name]!r} and to {value!r}: keep one of them")
        settings[name] = value
    check_settings(runtime, tuple(settings.items()))
    return tuple(sorted(settings.items()))


def check_settings(runtime: Runtime, settings: Sequence[tuple[str, str]]) -> None:
    """ValueError, with what there is, for a name that the runtime does not have or a value that cannot be."""
    for name, value in settings:
        setting = SETTINGS[runtime].get(name)
        if setting is None:
            raise ValueError(f"{runtime.value} has no setting {name!r}; {known_settings(runtime)}")
        if not re.fullmatch(setting.pattern, value, re.ASCII):
            raise ValueError(f"the setting {name} is {setting.looks}, not {value!r}")


def known_settings(runtime: Runtime) -> str:
    """In words, the list of what may be set."""
    described = ", ".join(f"{name} ({setting.looks})" for name, setting in SETTINGS[runtime].items())
    return f"it has {described}" if described else "it has none"
