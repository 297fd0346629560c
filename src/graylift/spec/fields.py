"""Reading a mapping field by field, going on after a wrong one, so that one pass finds every problem.

A reader takes a node and gives a value or raises `Wrong`. `Fields` notes what was raised and hands out a `Read`, whose
`value` is there or raises `Reported`: a value that depends on a wrong one silently fails with it, all else is read on.
It must not know what a release is. Called by `release`, `stages` and `judge`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from graylift.spec.document import Items, Mapping, Node, Scalar, Unusable
from graylift.spec.problems import Place, Problems

T = TypeVar("T")


class Wrong(Exception):
    """A value that cannot be taken."""

    def __init__(self, place: Place, what: str, cure: str) -> None:
        super().__init__(what)
        self.place = place
        self.what = what
        self.cure = cure


class Reported(Exception):
    """Something this value is made of is wrong; the user is told of that already."""


@dataclass(frozen=True, slots=True)
class Read(Generic[T]):
    """What came of reading one field, and where."""

    place: Place
    found: tuple[T, ...]
    """The value, or nothing."""

    @property
    def value(self) -> T:
        if not self.found:
            raise Reported
        return self.found[0]


@dataclass(frozen=True, slots=True)
class Shape:
    """The fields that one kind of mapping may have. Every shape stands in `shapes`.

    path:   where it stands in a release file, as the reference writes it
    fields: (name, what it is)
    later:  (name, what to do instead) of fields that a later version will have
    """

    path: str
    fields: MappingOf[str, str]
    later: MappingOf[str, str] = field(default_factory=dict[str, str])


class Fields:
    """One mapping of a known shape. Unknown fields are reported at once."""

    def __init__(self, node: Node, place: Place, shape: Shape, problems: Problems) -> None:
        """`place` is where a missing field is reported: the name of this mapping. Wrong if `node` is no mapping."""
        mapping = _expect_mapping(node, shape)
        self.place = place
        self.problems = problems
        self._shape = shape
        self._entries = {key.text: (key, value) for key, value in mapping.entries}
        self._has_later = False
        for key, _ in mapping.entries:
            if key.text in shape.later:
                self._has_later = True
                problems.add(key.place, f"`{key.text}` is not supported yet", shape.later[key.text])
            elif key.text not in shape.fields:
                problems.add(key.place, f"unknown field `{key.text}`", nearest(key.text, shape.fields))

    def has(self, name: str) -> bool:
        return name in self._entries

    def refuse(self, name: str, why: str, cure: str) -> None:
        """Report the field if it is there: it has no place beside the others."""
        if name in self._entries:
            self.problems.add(self._entries[name][0].place, why, cure)

    def read(self, name: str, reader: Callable[[Node], T]) -> Read[T]:
        """A field that must be there."""
        if name in self._entries:
            return self._attempt(self._entries[name][1], reader)
        if not self._has_later:  # a mapping of a later version is not told to look like one of this version, too
            self.problems.add(self.place, f"`{name}` is missing", f"add `{name}`: {self._shape.fields[name]}")
        return Read(self.place, ())

    def read_or(self, default: T, name: str, reader: Callable[[Node], T]) -> Read[T]:
        """A field that may be left out."""
        return self.read(name, reader) if name in self._entries else Read(self.place, (default,))

    def nested(self, name: str, shape: Shape, build: Callable[[Fields], T]) -> Read[T]:
        """A mapping that must be there."""

        def reader(node: Node) -> T:
            return build(Fields(node, self._entries[name][0].place, shape, self.problems))

        return self.read(name, reader)

    def nested_or(self, default: T, name: str, shape: Shape, build: Callable[[Fields], T]) -> Read[T]:
        """A mapping that may be left out."""
        return self.nested(name, shape, build) if name in self._entries else Read(self.place, (default,))

    def each(self, name: str, shape: Shape, build: Callable[[Fields], T]) -> Read[tuple[Read[T], ...]]:
        """A list of mappings that must be there, with at least one entry."""

        return self._list(name, lambda node: build(Fields(node, node.place, shape, self.problems)))

    def tables(
        self, name: str, reader: Callable[[Scalar, Node, Fields], T]
    ) -> Read[tuple[Read[tuple[Read[T], ...]], ...]]:
        """A list, with at least one entry, of mappings with names of the user's own."""

        def read(node: Node) -> tuple[Read[T], ...]:
            entries = _expect_mapping(node, Shape(f"{name}[]", {})).entries
            return tuple(self._attempt(value, lambda n, key=key: reader(key, n, self)) for key, value in entries)

        return self._list(name, read)

    def table(self, name: str, reader: Callable[[Scalar, Node], T]) -> Read[tuple[Read[T], ...]]:
        """A mapping with names of the user's own; nothing in it if it is left out."""

        def read(node: Node) -> tuple[Read[T], ...]:
            entries = _expect_mapping(node, Shape(name, {})).entries
            return tuple(self._attempt(value, partial(reader, key)) for key, value in entries)

        return self.read_or((), name, read)

    def _list(self, name: str, reader: Callable[[Node], T]) -> Read[tuple[Read[T], ...]]:
        def read(node: Node) -> tuple[Read[T], ...]:
            if isinstance(node, Unusable):
                raise Reported
            if not isinstance(node, Items) or not node.nodes:
                what = f"`{name}` is a list with at least one entry, not {_kind(node)}"
                raise Wrong(node.place, what, "write each entry in a line of its own: `- {...}`")
            return tuple(self._attempt(entry, reader) for entry in node.nodes)

        return self.read(name, read)

    def _attempt(self, node: Node, reader: Callable[[Node], T]) -> Read[T]:
        try:
            return Read(node.place, (reader(node),))
        except Wrong as wrong:
            self.problems.add(wrong.place, wrong.what, wrong.cure)
        except Reported:
            pass
        return Read(node.place, ())


def nearest(word: str, known: Collection[str]) -> str:
    """The cure for a word that is not among the known ones."""
    close = difflib.get_close_matches(word[:40], known, n=1)
    guess = f"did you mean `{close[0]}`? " if close else ""
    return f"{guess}known here: {', '.join(known)}"


def _expect_mapping(node: Node, shape: Shape) -> Mapping:
    if isinstance(node, Unusable):
        raise Reported
    if not isinstance(node, Mapping):
        hint = f"give it fields ({', '.join(shape.fields)})" if shape.fields else "write `name: value`, one a line"
        raise Wrong(node.place, f"`{shape.path}` is a mapping, not {_kind(node)}", f"{hint}, or leave it out")
    return node


def _kind(node: Node) -> str:
    match node:
        case Scalar(text=""):
            return "empty"
        case Scalar():
            return "a single value"
        case Items(nodes=()):
            return "an empty list"
        case Items():
            return "a list"
        case Mapping() | Unusable():
            return "a mapping"
