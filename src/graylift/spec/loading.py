"""The ways in: a path or a text becomes a `ReleaseSpec`, or a SpecError with every problem.

`load` and `load_rules` are the only place of the package that touches the file system. Called by the commands.
"""

from __future__ import annotations

from pathlib import Path

from graylift.domain.spec import ReleaseSpec
from graylift.errors import SpecError
from graylift.spec.document import tree_from_text
from graylift.spec.fields import Fields, Reported, Wrong
from graylift.spec.model import MissingFile
from graylift.spec.problems import Place, Problem, Problems
from graylift.spec.release import read_release
from graylift.spec.shapes import ROOT

MAX_BYTES = 1 << 20
_EXAMPLE = "docs/release-file.md shows what belongs here"


def load(path: Path) -> ReleaseSpec:
    """Read the release file at `path` and see that the files it names are there. SpecError with all problems."""
    return _load(path, _missing_file)


def load_rules(path: Path) -> ReleaseSpec:
    """Read the release file at `path` for its rules alone: its models may be elsewhere. SpecError with all problems."""
    return _load(path, lambda _: None)


def _load(path: Path, missing_file: MissingFile) -> ReleaseSpec:
    name = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise _file_error(name, f"cannot be read: {exc.strerror}", "check the path and its permissions") from exc
    if len(content) > MAX_BYTES:
        raise _file_error(name, "is larger than 1 MiB", "is this a release file? one of a hundred lines is long")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        start = content.rfind(b"\n", 0, exc.start) + 1
        place = Place(content.count(b"\n", 0, start) + 1, len(content[start : exc.start].decode()) + 1)
        problems = Problems(name, content.decode(errors="replace"))
        problems.fail(place, f"the byte 0x{content[exc.start]:02x} is not UTF-8", "save the file as UTF-8")
    return _read(text, name, path.parent.absolute(), missing_file)


def parse(text: str, name: str, base: Path) -> ReleaseSpec:
    """`name` stands in messages; relative paths start from `base`, an absolute folder. Nothing is looked up: whether
    the files it names exist is not asked. SpecError with all problems."""
    return _read(text, name, base, lambda _: None)


def _read(text: str, name: str, base: Path, missing_file: MissingFile) -> ReleaseSpec:
    if len(text) > MAX_BYTES:
        raise _file_error(name, "is larger than 1 MiB", "is this a release file? one of a hundred lines is long")
    problems = Problems(name, text)
    top = Place(1, 1)
    node = tree_from_text(text, problems)
    if node is None:
        problems.fail(top, "the file is empty", _EXAMPLE)
    try:
        spec = read_release(Fields(node, top, ROOT, problems), base, missing_file)
        problems.raise_if_any()
    except Wrong as wrong:
        problems.fail(wrong.place, wrong.what, _EXAMPLE)
    except Reported:
        problems.raise_if_any()
        raise
    return spec


def _missing_file(path: Path) -> str | None:
    try:
        with path.open("rb"):
            return None
    except OSError as exc:
        return f"{path} cannot be read: {exc.strerror}"


def _file_error(name: str, what: str, cure: str) -> SpecError:
    return SpecError([Problem(name, None, "", f"the file {what}", cure)])
