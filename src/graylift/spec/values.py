"""Readers of single values: a node in, a value out, `Wrong` with the cure if it cannot be.

YAML 1.2 and 1.1 disagree on what `no`, `010` or `1:30` is. Here a word is text only if both agree that it is, and a
number only in plain decimal; all else has to be written unmistakably. It must not know fields. Called by `release`,
`stages` and `judge`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Mapping as MappingOf
from decimal import Decimal
from typing import Any, TypeVar

import yaml
from yaml.resolver import Resolver

from graylift.spec.document import Items, Node, Scalar, Unusable
from graylift.spec.fields import Reported, Wrong, nearest
from graylift.spec.problems import UNREADABLE
from graylift.spec.units import margin_from_text, quota_from_text, rate_from_text, seconds_from_text, share_from_text

T = TypeVar("T")

_yaml11: Any = Resolver()
_NOT_TEXT_IN_YAML12 = re.compile(r"[-+]?(?:0o[0-7]+|0x[0-9a-fA-F]+|(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?)", re.ASCII)
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,11})(?:\.\d{1,9})?", re.ASCII)


def text(node: Node) -> str:
    """Text that every YAML reader takes for text."""
    scalar = _scalar(node, "text")
    if not scalar.text:
        raise Wrong(scalar.place, "this text is empty", "write some text, or delete the field")
    if found := UNREADABLE.search(scalar.text.replace("\n", "\0")):
        what = f"this text holds a control character, U+{ord(found[0]):04X}"
        raise Wrong(scalar.place, what, "delete it; text here is one line of printable characters")
    if scalar.plain and not is_text(scalar.text):
        raise Wrong(
            scalar.place,
            f"`{scalar.text}` without quotes is no text to every YAML reader",
            f'write it in quotes: "{scalar.text}"',
        )
    return scalar.text


def is_text(plain: str) -> bool:
    """Do YAML 1.1 and 1.2 both take this unquoted word for text?"""
    tag: str = _yaml11.resolve(yaml.ScalarNode, plain, (True, False))
    return tag == "tag:yaml.org,2002:str" and not _NOT_TEXT_IN_YAML12.fullmatch(plain)


def matching(noun: str, pattern: str, cure: str) -> Callable[[Node], str]:
    """Text of which the whole matches `pattern`."""
    compiled = re.compile(pattern, re.ASCII)

    def reader(node: Node) -> str:
        value = text(node)
        if not compiled.fullmatch(value):
            raise Wrong(node.place, f"`{_short(value)}` is not {noun}", cure)
        return value

    return reader


def choice(known: MappingOf[str, T], later: MappingOf[str, str] | None = None) -> Callable[[Node], T]:
    """One of the words of `known`; those of `later` come with a later version, each with what to do until then."""

    def reader(node: Node) -> T:
        value = _scalar(node, "one of " + ", ".join(known)).text
        if value in known:
            return known[value]
        if later and value in later:
            raise Wrong(node.place, f"`{value}` is not supported yet", later[value])
        raise Wrong(node.place, f"`{_short(value)}` is not a word known here", nearest(value, known))

    return reader


def quantity(noun: str, convert: Callable[[str], T]) -> Callable[[Node], T]:
    """What `convert` makes of the text; `noun` says what was expected."""

    def reader(node: Node) -> T:
        value = _scalar(node, noun).text
        try:
            return convert(value)
        except ValueError as exc:
            raise Wrong(node.place, f"`{_short(value)}` is not {noun} that can stand here", str(exc)) from exc

    return reader


duration = quantity("a duration", seconds_from_text)
percentage = quantity("a percentage", share_from_text)
rate = quantity("a rate", rate_from_text)
quota = quantity("a limit", quota_from_text)
any_margin = quantity("a margin", margin_from_text)


def between(low: float, high: float, cure: str, reader: Callable[[Node], float]) -> Callable[[Node], float]:
    """What `reader` reads, from `low` to `high`."""

    def bounded(node: Node) -> float:
        value = reader(node)
        if not low <= value <= high:
            raise Wrong(node.place, f"`{_scalar(node, 'a quantity').text}` is out of range", cure)
        return value

    return bounded


def number(node: Node) -> Decimal:
    """A decimal number, exact."""
    scalar = _scalar(node, "a number")
    if not scalar.plain:
        raise Wrong(scalar.place, f'"{_short(scalar.text)}" is text, and a number belongs here', "delete the quotes")
    if not _NUMBER.fullmatch(scalar.text):
        cure = "write digits, with a point if need be: 500, 0.99 (no unit, no leading zero, no `_`, no `:`)"
        raise Wrong(scalar.place, f"`{_short(scalar.text)}` is not a plain number", cure)
    return Decimal(scalar.text)


def decimal(node: Node) -> float:
    """A decimal number, as a float."""
    return float(number(node))


def integer(low: int, high: int) -> Callable[[Node], int]:
    """A whole number from `low` to `high`."""

    def reader(node: Node) -> int:
        value = number(node)
        if value != value.to_integral_value() or not low <= value <= high:
            raise Wrong(node.place, f"{value} is out of range", f"write a whole number from {low} to {high:,}")
        return int(value)

    return reader


def each_of(noun: str, reader: Callable[[Node], T]) -> Callable[[Node], tuple[T, ...]]:
    """A list, each entry read by `reader`; `noun` says what was expected, with an example."""

    def read(node: Node) -> tuple[T, ...]:
        if isinstance(node, Unusable):
            raise Reported
        if not isinstance(node, Items) or not node.nodes:
            raise Wrong(node.place, "a list with at least one entry belongs here", f"write {noun}")
        return tuple(map(reader, node.nodes))

    return read


def _scalar(node: Node, wanted: str) -> Scalar:
    if isinstance(node, Unusable):
        raise Reported
    if not isinstance(node, Scalar):
        raise Wrong(node.place, "one value belongs here, not a list or a mapping", f"write {wanted}")
    if node.plain and not node.text:
        raise Wrong(node.place, "nothing is written here", f"write {wanted}, or delete the field")
    return node


def _short(value: str) -> str:
    return value if len(value) <= 60 else value[:57] + "..."
