"""docs/checks.md against the checks: each has its section, each setting its row with the default that holds."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

from graylift import checks
from graylift.spec import shapes
from graylift.spec.fields import Shape

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "checks.md").read_text()
SECTIONS = {
    title.lower(): body for title, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}
ASKED = ("**Asks**", "**Why**", "**Measures**", "**When it fails**")
SETTINGS = [shape for shape in shapes.SHAPES if shape.path.startswith("spec.checks.")]


def names_of_checks() -> list[str]:
    """As they stand in results: each check's module says it; builds are one for each side."""
    modules = (importlib.import_module(f"graylift.checks.{m.name}") for m in pkgutil.iter_modules(checks.__path__))
    named = {name for m in modules if isinstance(name := getattr(m, "CHECK", None), str)}
    return sorted({"build", *named})


def title_of(shape: Shape) -> str:
    """`spec.checks.coldStart` is the cold start."""
    return re.sub(r"(?=[A-Z])", " ", shape.path.rpartition(".")[2]).lower()


def defaults_of(section: str) -> dict[str, str]:
    """Settings with their defaults, of a table `| name | default | what it is |`."""
    return {name: default.strip() for name, default in re.findall(r"^\| `(\w+)` \|(.*?)\|", section, re.MULTILINE)}


def test_there_is_something_to_test() -> None:
    assert {"build", "interface", "parity", "cold start", "boundary"} <= set(names_of_checks())
    assert len(SETTINGS) == 6


@pytest.mark.parametrize("name", names_of_checks())
def test_every_check_has_a_section_that_says_what_why_how_and_what_then(name: str) -> None:
    for word in ASKED:
        assert word in SECTIONS[name], f"{name} does not say {word}"
    anchor = name.replace(" ", "-")
    assert f"[{name}](#{anchor})" in PAGE.partition("\n## ")[0], f"{name} is not in the list"


@pytest.mark.parametrize("shape", SETTINGS, ids=lambda shape: shape.path)
def test_every_setting_has_its_row_with_the_default_of_the_release_file(shape: Shape) -> None:
    rows = defaults_of(SECTIONS[title_of(shape)])
    reference = (ROOT / "docs" / "release-file.md").read_text()
    assert set(rows) == set(shape.fields)
    assert rows == defaults_of(reference.partition(f"## `{shape.path}`\n")[2].partition("\n## ")[0])
