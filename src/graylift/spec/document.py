"""YAML text -> a tree of nodes that know their places; the small, safe part of YAML that a release file needs.

Built on the parser's events, not on its objects: nothing is ever guessed from the look of a word, so `no` stays the
text it is, and anchors, tags and a second key of the same name are seen and refused instead of resolved.
It must not know what a release is. Called by `loading`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from graylift.spec.problems import UNREADABLE, Place, Problems

MAX_DEPTH = 16
"""Levels of nesting; the deepest field of a release file lies at 6."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Scalar:
    """plain: written without quotes (and not as a block)."""

    text: str
    plain: bool
    place: Place


@dataclass(frozen=True, slots=True)
class Items:
    nodes: tuple[Node, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys are unique."""

    entries: tuple[tuple[Scalar, Node], ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Unusable:
    """Stands where something was refused already, so that the rest can be read."""

    place: Place


Node = Scalar | Items | Mapping | Unusable


def tree_from_text(text: str, problems: Problems) -> Node | None:
    """The only document of `text`; None if there is none. What it refuses goes to `problems`; syntax that cannot be
    read past raises SpecError."""
    if found := UNREADABLE.search(text):
        before = text[: found.start()]
        line_start = max(before.rfind("\n"), before.rfind("\r")) + 1
        line = len(before.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
        problems.fail(
            Place(line, found.start() - line_start + 1),
            f"the character U+{ord(found[0]):04X} cannot stand in a YAML file",
            "delete it, or write the file as plain UTF-8 text",
        )
    try:
        return _Composer(yaml.parse(text, Loader=_Loader), problems).document()
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        place = Place(1, 1) if mark is None else Place(mark.line + 1, mark.column + 1)
        what = ", ".join(part for part in (exc.context, exc.problem) if part)
        if exc.context_mark and exc.context_mark.line + 1 != place.line:
            what += f" (it began in line {exc.context_mark.line + 1})"
        problems.fail(place, f"this is not YAML: {what}", _syntax_cure(text, place))


def _syntax_cure(text: str, place: Place) -> str:
    """The usual slip behind a syntax error."""
    lines = text.splitlines()
    near = "\n".join(lines[max(0, place.line - 2) : place.line])
    if "\t" in near:
        return "a tab stands in this line or the one before; indent with spaces"
    if place.line > len(lines) or not lines[place.line - 1].strip():
        return "something that was opened further up ( [ { \" ' ) has no end"
    return "look at this line and the one before it: the indentation, a `:` without a space after it, an open quote"


class _Composer:
    """Turns the parser's events into nodes."""

    def __init__(self, events: Iterator[Any], problems: Problems) -> None:
        self._events = events
        self._problems = problems

    def document(self) -> Node | None:
        root: Node | None = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._problems.add(_place(event), "a second document begins here", "one release a file")
                    break
                if event.version or event.tags:
                    self._problems.add(_place(event), "directives (%) are not read here", "delete them")
            elif isinstance(event, yaml.NodeEvent):
                root = self._node(event, 1)
        return root

    def _node(self, event: Any, depth: int) -> Node:
        place = _place(event)
        if isinstance(event, yaml.AliasEvent):
            self._problems.add(place, f"`*{event.anchor}` is a YAML alias", "write the value out in full")
            return Unusable(place)
        if event.anchor is not None:
            self._problems.add(place, f"`&{event.anchor}` is a YAML anchor", "delete it, and write values out in full")
        if event.tag is not None:
            self._problems.add(place, f"`{event.tag}` is a YAML tag", "delete it; put text in quotes")
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(event.value, event.style in (None, ""), place)
        if depth > MAX_DEPTH:
            # Reading past it would take the parser time in the square of the depth.
            self._problems.fail(place, f"nested deeper than {MAX_DEPTH} levels", "no field of a release lies this deep")
        if isinstance(event, yaml.SequenceStartEvent):
            return Items(tuple(self._nodes(depth)), place)
        return Mapping(tuple(self._entries(depth)), place)

    def _nodes(self, depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self._events), yaml.CollectionEndEvent):
            yield self._node(event, depth + 1)

    def _entries(self, depth: int) -> Iterator[tuple[Scalar, Node]]:
        seen: dict[str, Scalar] = {}
        nodes = self._nodes(depth)
        for key in nodes:
            value = next(nodes)
            if not isinstance(key, Scalar):
                if not isinstance(key, Unusable):
                    self._problems.add(key.place, "a list or a mapping cannot be the name of a field", "write a word")
            elif key.text == "<<" and key.plain:
                self._problems.add(key.place, "`<<` merges another mapping in", "write the fields out in full")
            elif (first := seen.setdefault(key.text, key)) is not key:
                self._problems.add(
                    key.place,
                    f"`{key.text}` stands here twice: in line {first.place.line} and in line {key.place.line}",
                    "keep one of them",
                )
            else:
                yield key, value


def _place(event: Any) -> Place:
    start, end = event.start_mark, event.end_mark
    width = end.column - start.column if end.line == start.line else 1
    return Place(start.line + 1, start.column + 1, max(1, width))
