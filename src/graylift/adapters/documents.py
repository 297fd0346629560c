"""Domain values to JSON and back, for whoever has to keep them. It knows no database and no file.

The domain needs the standard library alone, so pydantic meets it here, from outside. Fields that a newer version
added have their default when an older document is read; fields that are gone are passed over.
"""

from __future__ import annotations

from functools import cache
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

T = TypeVar("T")


def document_from(value: object) -> str:
    """JSON of a domain value. Infinite floats (evidence that is beyond doubt) are kept as `Infinity`."""
    return to_json(value, inf_nan_mode="constants").decode()


def value_from(kind: type[T], document: str | bytes) -> T:
    """The value of type `kind` that `document_from` wrote. ValueError, naming the first fault, if it is none."""
    try:
        return _adapter(kind).validate_json(document)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "its beginning"
        raise ValueError(f"this is no {kind.__name__}: at {place}: {first['msg']}") from error


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)
