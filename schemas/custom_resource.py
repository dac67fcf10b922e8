"""A campaign's definition as a structural schema, for the CustomResourceDefinition: the fields, bounds and meanings
of the record in camel case.

Structural schemas know no references.  A default stands in the description alone: written into the resource it would
stay what it was when a later version knows a better one.
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from schemas.camel import spelled
from schemas.json_schema import Schema, json_schema
from schemas.sending import Campaign

_LEFT_OUT = frozenset({"v", "campaign"})  # the resource has a version of its own, and says beside it whose it is
_BOUNDS = ("enum", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems")
_NAME = re.compile(r"`([a-z_]+)`")


def definition() -> dict[str, Schema]:
    """The properties of ``spec`` that come from the record ``Campaign``, in its order."""
    record = json_schema(Campaign)
    known = {name: field for name, field in record["properties"].items() if name not in _LEFT_OUT}
    return {spelled(name): _structural(field, record["$defs"], known) for name, field in known.items()}


def as_yaml(value: Mapping[str, Any], indent: int = 0) -> str:  # Any: JSON
    """JSON as YAML blocks, with its strings quoted as JSON quotes them."""
    lines = []
    for name, one in value.items():
        if isinstance(one, Mapping) and one:
            lines += [f"{' ' * indent}{name}:", as_yaml(one, indent + 2)]
        else:
            lines.append(f"{' ' * indent}{name}: {json.dumps(one, ensure_ascii=False)}")
    return "\n".join(lines)


def _structural(field: Schema, parts: Mapping[str, Schema], beside: Mapping[str, Schema]) -> Schema:
    kinds = field.get("anyOf", [field])
    kind = next(one for one in kinds if one.get("type") != "null")
    part = parts[kind["$ref"].rpartition("/")[2]] if "$ref" in kind else kind
    found: Schema = {"description": _meaning(field, beside)} if "description" in field else {}
    found["type"] = part.get("type", "string")  # an enumeration says no type
    found |= {bound: part[bound] for bound in _BOUNDS if bound in part}
    if len(kinds) > 1:
        found["nullable"] = True
    match found["type"]:
        case "object" if "properties" in part:
            fields = part["properties"]
            found["properties"] = {spelled(name): _structural(one, parts, fields) for name, one in fields.items()}
            if part.get("required"):
                found["required"] = [spelled(name) for name in part["required"]]
        case "object":
            found["additionalProperties"] = _structural(part["additionalProperties"], parts, {})
        case "array":
            found["items"] = _structural(part["items"], parts, {})
    if found["type"] == "object":  # one owner for the whole, so that putting it right again leaves nothing of others
        found["x-kubernetes-map-type"] = "atomic"
    return found


def _meaning(field: Schema, beside: Mapping[str, Schema]) -> str:
    """A field's sentence, with the names of the fields beside it as they are spelled here, and its default."""
    said = _NAME.sub(lambda name: f"`{spelled(name[1])}`" if name[1] in beside else name[0], field["description"])
    default = field.get("default")
    if not isinstance(default, str | int | float) or default == "":
        return said
    return f"{said} (default: {default if isinstance(default, str) else json.dumps(default)})"
