"""The documents against the code: examples parse, commands and options exist and are told of, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest
import typer.main

from graylift.cli.main import app
from graylift.spec import parse

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
COMMANDS: dict[str, Any] = cast("Any", typer.main.get_command(app)).commands

RELEASE = re.compile(r"^(?:# release\.yaml\n)?(apiVersion: .*?)(?=^```|^YAML$)", re.MULTILINE | re.DOTALL)
TYPED = re.compile(r"(?:^|`|\s|\$ )graylift ([a-z]+)((?: +(?:-{1,2}[\w-]+|[^\s`#&|;]+))*)")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def releases() -> list[tuple[str, str]]:
    return [(page.name, text) for page in PAGES for text in RELEASE.findall(page.read_text())]


def typed() -> list[tuple[str, str, str]]:
    """(page, command, the rest of the line) wherever a page shows a command in code."""
    found: list[tuple[str, str, str]] = []
    for page in PAGES:
        code = re.findall(r"```console\n(.*?)```|`([^`\n]+)`", page.read_text(), re.DOTALL)
        for block, inline in code:
            for line in (block or inline).splitlines():
                found += [(page.name, command, rest) for command, rest in TYPED.findall(line)]
    return found


def test_there_is_something_to_test() -> None:
    assert len(releases()) >= 4
    assert len(typed()) >= 20


@pytest.mark.parametrize(("page", "text"), releases())
def test_every_release_file_in_the_documents_is_valid(page: str, text: str) -> None:
    assert parse(text, page, Path("/base")).stages


@pytest.mark.parametrize(("page", "command", "rest"), typed())
def test_every_command_in_the_documents_exists_with_its_options(page: str, command: str, rest: str) -> None:
    assert command in COMMANDS, f"{page} shows `graylift {command}`"
    found = COMMANDS[command]
    if group := getattr(found, "commands", None):
        found = group[rest.split(maxsplit=1)[0]]
    known = {option for parameter in found.params for option in parameter.opts}
    for option in re.findall(r"(?<!\S)-{1,2}[a-z][\w-]*", rest):
        assert option in known | {"--help"}, f"{page} shows `graylift {command} {option}`"


def test_every_command_is_told_of() -> None:
    told = {command for _, command, _ in typed()}
    words = " ".join(page.read_text() for page in PAGES)
    missing = {name for name in COMMANDS if name not in told and f"`{name}`" not in words}
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_exit_code_is_told_of() -> None:
    told = (ROOT / "docs" / "operations.md").read_text()
    for code in (0, 1, 2, 3, 4, 5, 130):
        assert f"| {code} |" in told
