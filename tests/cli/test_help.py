"""Help and completion: they teach, and they wait for nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, cast

import pytest
import typer.main
from calling import Shell

from graylift.cli.main import app

COMMANDS: dict[str, Any] = cast("Any", typer.main.get_command(app)).commands

HEAVY = ("onnx", "onnxruntime", "openvino", "numpy", "aiohttp", "sqlalchemy", "jinja2", "uvicorn")

SEE_WHAT_HELP_IMPORTS = f"""
import sys
sys.argv = ["graylift", *sys.argv[1:]]
from graylift.cli.main import app
try:
    app()
finally:
    loaded = sorted(set({HEAVY!r}) & set(sys.modules))
    sys.stderr.write(" ".join(loaded))
"""


@pytest.mark.parametrize("arguments", [(), *((name,) for name in COMMANDS)], ids=lambda a: " ".join(a) or "graylift")
def test_help_of_every_command_imports_nothing_heavy_and_says_something(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        (sys.executable, "-c", SEE_WHAT_HELP_IMPORTS, *arguments, "--help"), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: graylift" in done.stdout


def test_every_argument_and_option_says_what_it_is() -> None:
    silent = [
        f"{name} {parameter.name}"
        for name, command in COMMANDS.items()
        for parameter in getattr(command, "params", ())
        if not parameter.help
    ]
    assert silent == []


def test_completion_knows_the_new_commands_and_the_choices_of_an_option(shell: Shell) -> None:
    from typer.testing import CliRunner

    def completed(words: str) -> str:
        environment = {"_GRAYLIFT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        return CliRunner().invoke(app, prog_name="graylift", env=environment).stdout

    assert {"build", "check", "inspect"} <= set(completed("graylift ").split())
    assert "int8-dynamic" in completed("graylift build --precision ")
