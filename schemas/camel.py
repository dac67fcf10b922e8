"""Records in the spelling of Kubernetes: ``max_age_s`` as ``maxAgeSeconds``, and back.

Only names of fields are spelled anew; keys of free maps, such as an owner's labels, are data and stay.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, get_args, get_origin

import msgspec


def spelled(name: str) -> str:
    """A field's name as Kubernetes spells it; units are written out."""
    first, *others = re.sub(r"_s\Z", "_seconds", name).split("_")
    return first + "".join(word.capitalize() for word in others)


def to_camel(part: msgspec.Struct) -> dict[str, Any]:  # Any: JSON
    """A struct as JSON in camel case, without the version."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(part):
        value = getattr(part, field.name)
        if isinstance(value, msgspec.Struct):
            value = to_camel(value)
        found[spelled(field.encode_name)] = list(value) if isinstance(value, tuple) else value
    return found


@cache
def _spellings(struct: type[msgspec.Struct]) -> tuple[tuple[str, str], ...]:
    """Each field's name, and how it is written; asking a struct for its fields takes longer than writing it."""
    return tuple((field.name, spelled(field.encode_name)) for field in msgspec.structs.fields(struct))


def to_snake(written: Mapping[str, Any], struct: type[msgspec.Struct]) -> dict[str, Any]:  # Any: JSON
    """Camel case JSON with the names that the codec reads; what the struct does not know is left as it is."""
    known = {spelled(field.encode_name): field for field in msgspec.structs.fields(struct)}
    found = {}
    for name, value in written.items():
        field = known.get(name)
        inner = None if field is None else struct_in(field.type)
        found[name if field is None else field.encode_name] = (
            to_snake(value, inner) if inner is not None and isinstance(value, Mapping) else value
        )
    return found


def struct_in(kind: Any) -> type[msgspec.Struct] | None:  # Any: an annotation
    """The struct that a field holds, also one that may be missing; None for everything else."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    if get_origin(kind) in (dict, list, tuple):
        return None
    return next((found for one in get_args(kind) if (found := struct_in(one)) is not None), None)
