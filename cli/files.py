"""Reading what people write: campaign and content files, strictly, with the field and the fix in every complaint."""

import difflib
import json
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cli.failures import WrongUse
from schemas.base import Record
from schemas.codec import Malformed, decode

R = TypeVar("R", bound=Record)


def read_records(file: Path, record: type[R]) -> list[R]:
    """The records of a file: one JSON object, a list of them, or one a line.  A wrong field ends the command."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as wrong:
        raise WrongUse(f"{file}: {wrong}") from wrong
    found = _objects(file, text)
    if not found:
        raise WrongUse(f"{file} holds no {record.__name__}; write one JSON object, a list of them, or one a line")
    return [_one(file, position, raw, record) for position, raw in enumerate(found)]


def _objects(file: Path, text: str) -> list[dict[str, Any]]:
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as broken:
        lines = [line for line in text.splitlines() if line.strip()]
        try:
            whole = [json.loads(line) for line in lines] if len(lines) > 1 else None
        except json.JSONDecodeError:
            whole = None
        if whole is None or not all(isinstance(one, dict) for one in whole):
            raise WrongUse(f"{file} is not JSON: line {broken.lineno}, column {broken.colno}: {broken.msg}") from broken
    found = whole if isinstance(whole, list) else [whole]
    for one in found:
        if not isinstance(one, dict):
            raise WrongUse(f"{file}: expected a JSON object, got {type(one).__name__}")
    return found


def _one(file: Path, position: int, raw: dict[str, Any], record: type[R]) -> R:
    where = f"{file}" if position == 0 else f"{file}, object {position + 1}"
    strange = _unknown(raw, record, "")
    if strange:
        raise WrongUse(f"{where}: {strange}")
    raw.setdefault("v", 1)
    match decode(record, json.dumps(raw).encode()):
        case Malformed() as wrong:
            raise WrongUse(f"{where}: {wrong.explain}")
        case good:
            return good


def _unknown(raw: dict[str, Any], struct: type[msgspec.Struct], path: str) -> str | None:
    """A sentence about the first field that no such record has; records on topics may have more, files may not."""
    known = {one.encode_name: one for one in msgspec.structs.fields(struct)}
    for name, value in raw.items():
        if name == "v" and not path:
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(sorted(known))}"
            return f"field {path}{name} is unknown; {hint}"
        inner = known[name].type
        if isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            deeper = _unknown(value, inner, f"{path}{name}.")
            if deeper:
                return deeper
    return None
