"""The JSON Schema of a record, made from the struct that the codec reads it with.

The schema says what to send: it asks for ``v`` and lets unknown fields pass, as the codec ignores them.  Titles and
descriptions are the names and docstrings of the structs, so there is no second place to keep in step.
"""

import inspect
import re
from typing import Any

import msgspec

from schemas.base import Record
from schemas.meanings import MEANINGS
from schemas.topics import TOPICS

Schema = dict[str, Any]  # Any: a JSON Schema is JSON

UNIT_OF_TIME = "milliseconds since the epoch, UTC"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

RECORDS: tuple[type[Record], ...] = tuple(record for topic in TOPICS for record in topic.records)


def kebab(name: str) -> str:
    """``SendRequest`` as a file name: ``send-request``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


def identifier(record: type[Record]) -> str:
    """The ``$id`` of a record's schema; it carries the version that the record carries."""
    return f"urn:mailcordon:records:1:{kebab(record.__name__)}"


def prose(docstring: str) -> str:
    """A docstring as Markdown: unindented, with single backquotes and single spaces."""
    return re.sub(r"(?<=\S)  +", " ", inspect.cleandoc(docstring).replace("``", "`"))


def parts(ref_template: str) -> dict[str, Schema]:
    """Every record and part by name, in flow order; references follow ``ref_template``."""
    _, found = msgspec.json.schema_components(RECORDS, ref_template=ref_template)
    return {name: _tidy(schema) for name, schema in found.items()}


def json_schema(record: type[Record]) -> Schema:
    """The schema of one record, complete in itself."""
    (_,), found = msgspec.json.schema_components([record], ref_template="#/$defs/{name}")
    schema = _tidy(found.pop(record.__name__))
    head: Schema = {"$schema": DIALECT, "$id": identifier(record)}
    tail: Schema = {"$defs": {name: _tidy(part) for name, part in found.items()}} if found else {}
    return head | schema | tail


def _tidy(schema: Schema) -> Schema:
    """One struct's schema with readable prose, a meaning at every field, and its version as the constant it is."""
    meanings = MEANINGS.get(schema["title"], {})
    properties = {
        name: field | {"description": _with_unit(meanings[name], field)} if name in meanings else field
        for name, field in schema["properties"].items()
    }
    if properties.get("v") == {"enum": [1]}:
        properties["v"] = {"description": "version of the record; another version is a dead letter", "const": 1}
    return schema | {"description": prose(schema["description"]), "properties": properties}


def _with_unit(meaning: str, field: Schema) -> str:
    said = {kind.get("description") for kind in (field, *field.get("anyOf", ()))}
    return f"{meaning} ({UNIT_OF_TIME})" if UNIT_OF_TIME in said else meaning
