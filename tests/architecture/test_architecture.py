"""The structure itself: layers, lazy vendor runtimes, and the words of the documents."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

IMPORT_EVERYTHING_WITHOUT_VENDORS = """
import importlib, importlib.abc, pkgutil, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"onnxruntime", "openvino", "tensorrt", "tensorrt_rtx_bindings", "torch", "envoy"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import graylift
names = [m.name for m in pkgutil.walk_packages(graylift.__path__, "graylift.") if not m.name.endswith("__main__")]
# To import one of these is to activate its runtime; engine/vendors.py does.
names.remove("graylift.engine.onnx_runtime")
names.remove("graylift.engine.onnx_providers")
names.remove("graylift.engine.openvino_runtime")
names.remove("graylift.engine.pytorch_runtime")
names.remove("graylift.engine.tensorrt_runtime")
names.remove("graylift.engine.tensorrt_rtx_runtime")
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_imports_go_downward_only_and_the_pure_layers_touch_nothing() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_every_module_but_a_runtimes_own_imports_where_no_vendor_runtime_is_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_EVERYTHING_WITHOUT_VENDORS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


def test_requirements_are_pinned_by_hash_and_name_no_index() -> None:
    for file in (ROOT / "requirements").glob("*.txt"):
        for line in file.read_text().splitlines():
            assert "://" not in line, f"{file.name} names a host: {line}"
            assert not line.startswith("--"), f"{file.name} sets an option: {line}"
            if line and not line[0].isspace() and not line.startswith("#"):
                assert "==" in line, f"{file.name} does not pin: {line}"
