"""Topics and records as Markdown tables, for the guide."""

import json
from typing import Any

from schemas.json_schema import RECORDS, parts, prose
from schemas.topics import DAY_S, TOPICS, Topic

_REF = "part:{name}"
_PLAIN = {"integer": "integer", "number": "number", "boolean": "true or false", "null": "null"}


def topic_table() -> str:
    """One row per topic, in flow order."""
    rows = ["| topic | key | records | kept | what it holds |", "|---|---|---|---|---|"]
    for topic in TOPICS:
        records = ", ".join(f"[{record.__name__}](#{record.__name__.lower()})" for record in topic.records)
        shown = f"`{topic.name}`*name*" if topic.per_campaign else f"`{topic.name}`"
        rows.append(f"| {shown} | {_cell(topic.keyed_by)} | {records} | {_kept(topic)} | {_cell(topic.purpose)} |")
    return "\n".join(rows)


def record_tables() -> str:
    """One section per record and per part of a record: what it is, and its fields."""
    found = parts(_REF)
    names = [record.__name__ for record in RECORDS]
    names += [name for name in found if name not in names]
    return "\n\n".join(_section(name, found[name]) for name in names)


def _section(name: str, schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = ["| field | type | if left out | meaning |", "|---|---|---|---|"]
    for field, of in schema["properties"].items():
        missing = "**required**" if field in required else f"`{json.dumps(of.get('default'))}`"
        rows.append(f"| `{field}` | {_type(of)} | {missing} | {_cell(of['description'])} |")
    return "\n".join([f"### {name}", "", prose(schema["description"]), "", *rows])


def _kept(topic: Topic) -> str:
    if topic.retention_s is None:
        return "newest per key"
    days = f"{topic.retention_s // DAY_S} days"
    return f"newest per key, {days}" if "compact" in topic.cleanup else days


def _type(of: dict[str, Any]) -> str:  # noqa: PLR0911 - one line per kind of type
    match of:
        case {"anyOf": kinds}:
            return " or ".join(dict.fromkeys(_type(kind) for kind in kinds))
        case {"$ref": ref} | {"allOf": [{"$ref": ref}]}:
            name = ref.removeprefix("part:")
            return f"[{name}](#{name.lower()})"
        case {"const": value}:
            return f"`{value}`"
        case {"enum": values}:
            return " or ".join(f"`{value}`" for value in values)
        case {"type": "array", "items": items}:
            return f"list of {_type(items)}" + _bounds(of, "minItems", "maxItems")
        case {"type": "object"}:
            values = of.get("additionalProperties", {})
            return f"map of text to {_type(values)}" + _bounds(of, "minProperties", "maxProperties")
        case {"type": "string"}:
            return "text" + _bounds(of, "minLength", "maxLength", " characters")
        case _:
            return _PLAIN.get(of.get("type", ""), "anything") + _bounds(of, "minimum", "maximum")


def _bounds(of: dict[str, Any], low: str, high: str, unit: str = "") -> str:
    match of.get(low), of.get(high):
        case None, None:
            return ""
        case least, None:
            return f", at least {least:,}{unit}"
        case None, most:
            return f", at most {most:,}{unit}"
        case least, most:
            return f", {least:,} to {most:,}{unit}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
