"""Reports of the native half, which come as JSON, as dataclasses."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

_Record = TypeVar("_Record")


def read_record(kind: type[_Record], text: str) -> _Record:
    """The dataclass ``kind`` of an object in JSON."""
    return cast(_Record, _value(kind, json.loads(text)))


def read_records(kind: type[_Record], text: str) -> list[_Record]:
    """A list of dataclasses ``kind`` of an array in JSON."""
    return [cast(_Record, _value(kind, value)) for value in json.loads(text)]


def make_record(kind: type[_Record], value: Mapping[str, Any]) -> _Record:
    """The dataclass ``kind`` with the fields of a JSON object that was read already."""
    return cast(_Record, _value(kind, value))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _value(kind: Any, value: Any) -> Any:
    """``value``, of JSON, as ``kind``; what it cannot be is a defect of the package, whose two halves belong together."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        (some,) = (argument for argument in get_args(kind) if argument is not type(None))
        return None if value is None else _value(some, value)
    if origin is tuple:
        element = get_args(kind)[0]
        return tuple(_value(element, one) for one in value)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = _hints(kind)
        missing = hints.keys() ^ value.keys()
        # What may be left out where there is nothing to say has a default.
        defaults = {field.name for field in dataclasses.fields(kind) if field.default is not dataclasses.MISSING}
        if missing - defaults or not value.keys() <= hints.keys():
            raise TypeError(f"{kind.__name__}: the native half says {sorted(value)}, expected {sorted(hints)}")
        return kind(**{name: _value(hints[name], one) for name, one in value.items()})
    if kind is float and value is not None:
        return float(value)
    return value
