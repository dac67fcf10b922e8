"""Examples of every record as bytes: what we write, and what we have promised to read."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from schemas.base import Record
from schemas.codec import decode, encode
from schemas.json_schema import RECORDS, json_schema

HERE = Path(__file__).parent
BY_NAME = {record.__name__: record for record in RECORDS}
GOLDEN = sorted((HERE / "golden").glob("*/*.json"))
ACCEPTED = sorted((HERE / "accepted").glob("*/*.json"))


def _id(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


def _record(path: Path) -> type[Record]:
    return BY_NAME[path.parent.name]


def _read(path: Path) -> Record:
    record = decode(_record(path), path.read_bytes())
    assert isinstance(record, _record(path)), record
    return record


@pytest.mark.parametrize("path", GOLDEN, ids=_id)
def test_what_we_write_stays_as_it_is(path: Path) -> None:
    assert json.loads(encode(_read(path))) == json.loads(path.read_bytes())


@pytest.mark.parametrize("path", ACCEPTED, ids=_id)
def test_what_was_promised_is_still_read(path: Path) -> None:
    given = json.loads(path.read_bytes())

    assert _common(given, json.loads(encode(_read(path)))) == _without_unknown(given, _record(path))


@pytest.mark.parametrize("path", GOLDEN + ACCEPTED, ids=_id)
def test_an_example_fits_its_schema(path: Path) -> None:
    schema = json_schema(_record(path))

    assert [error.message for error in Draft202012Validator(schema).iter_errors(json.loads(path.read_bytes()))] == []


@pytest.mark.parametrize("name", BY_NAME)
def test_every_record_has_an_example(name: str) -> None:
    assert [path for path in GOLDEN if path.parent.name == name]


def test_every_example_belongs_to_a_record() -> None:
    assert {path.parent.name for path in GOLDEN + ACCEPTED} <= set(BY_NAME)


def _common(given: Any, written: Any) -> Any:
    """``written``, cut down to the fields that were given."""
    match given, written:
        case dict(), dict():
            return {name: _common(value, written[name]) for name, value in given.items() if name in written}
        case list(), list():
            return [_common(one, other) for one, other in zip(given, written, strict=True)]
        case _:
            return written


def _without_unknown(given: dict[str, Any], record: type[Record]) -> dict[str, Any]:
    """``given`` without fields that its schema does not know."""
    schema = json_schema(record)

    def known(value: Any, of: dict[str, Any]) -> Any:
        for kind in (of, *of.get("anyOf", ())):
            target = schema["$defs"][kind["$ref"].rpartition("/")[2]] if "$ref" in kind else kind
            if isinstance(value, dict) and "properties" in target:
                return {
                    name: known(one, target["properties"][name])
                    for name, one in value.items()
                    if name in target["properties"]
                }
            if isinstance(value, list) and "items" in target:
                return [known(one, target["items"]) for one in value]
        return value

    return {
        name: known(value, schema["properties"][name]) for name, value in given.items() if name in schema["properties"]
    }
