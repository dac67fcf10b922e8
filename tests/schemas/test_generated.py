"""The generated schemas and the AsyncAPI document: up to date, valid, and true."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator

from schemas import generate
from schemas.asyncapi import FLOW, asyncapi
from schemas.base import Record
from schemas.codec import Malformed, decode, encode
from schemas.json_schema import RECORDS, json_schema, kebab, parts
from schemas.meanings import MEANINGS
from schemas.topics import BY_NAME, TOPICS
from tests.schemas.strategies import json_values, records

OFFICIAL = Path(__file__).parents[1] / "fixtures" / "asyncapi" / "asyncapi-3.0.0.schema.json"
by_record = pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)


def test_generated_files_are_up_to_date() -> None:
    assert generate.stale() == [], "run `make schemas`"


def test_check_names_what_is_stale(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "stale", lambda: ["schemas/generated/asyncapi.json"])

    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().out == "stale: schemas/generated/asyncapi.json\n"


def test_what_is_stale_is_found_in_a_tree(tmp_path: Path) -> None:
    for path, text in generate.outputs().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    assert generate.stale(tmp_path) == []

    (tmp_path / "schemas/generated/control.schema.json").write_text("{}")
    (tmp_path / "schemas/generated/old.schema.json").write_text("{}")

    assert generate.stale(tmp_path) == ["schemas/generated/control.schema.json", "schemas/generated/old.schema.json"]


def test_another_option_is_wrong_use() -> None:
    assert generate.main(["--chek"]) == 2


def test_a_page_without_its_markers_says_which() -> None:
    with pytest.raises(generate.NoPlace, match="<!-- generated: topics -->"):
        generate.filled("# Topics", "topics", "x")


def test_the_same_records_give_the_same_files() -> None:
    assert generate.outputs() == generate.outputs()


@by_record
def test_a_schema_is_a_schema(record: type[Record]) -> None:
    Draft202012Validator.check_schema(json_schema(record))


@by_record
@given(data=st.data())
def test_everything_we_write_fits_its_schema(record: type[Record], data: st.DataObject) -> None:
    written = json.loads(encode(data.draw(records(record))))

    Draft202012Validator(json_schema(record)).validate(written)


@by_record
@given(data=st.data())
def test_what_does_not_fit_its_schema_is_not_read(record: type[Record], data: st.DataObject) -> None:
    """One field is replaced by arbitrary JSON.  Floats stand apart: JSON Schema takes 1.0 for an integer, we do not."""
    value = json.loads(encode(data.draw(records(record))))
    field = data.draw(st.sampled_from(sorted(value)))
    value[field] = data.draw(json_values().filter(lambda one: not isinstance(one, float)))
    if Draft202012Validator(json_schema(record)).is_valid(value):
        return

    assert isinstance(decode(record, json.dumps(value).encode()), Malformed)


def test_the_document_is_valid_asyncapi() -> None:
    official = json.loads(OFFICIAL.read_bytes())

    errors = [
        f"{list(error.absolute_path)}: {error.message}" for error in Draft7Validator(official).iter_errors(asyncapi())
    ]

    assert errors == []


def test_the_official_schema_would_find_a_mistake() -> None:
    official = json.loads(OFFICIAL.read_bytes())
    wrong = asyncapi()
    wrong["operations"]["application.send.mail.send.requests"]["action"] = "publish"

    assert not Draft7Validator(official).is_valid(wrong)


def test_every_reference_of_the_document_leads_somewhere() -> None:
    document = asyncapi()

    lost = [ref for ref in _references(document) if _at(document, ref) is None]

    assert lost == []


def test_every_topic_is_a_channel_in_flow_order() -> None:
    channels = list(asyncapi()["channels"].values())

    assert [one["address"].removesuffix("{name}") for one in channels] == [topic.name for topic in TOPICS]


def test_every_topic_is_written_and_read_by_somebody() -> None:
    for topic in BY_NAME:
        actions = {step.action for step in FLOW if step.topic == topic}

        assert actions == {"send", "receive"}, topic


def test_a_step_stands_once_in_the_flow() -> None:
    assert len(asyncapi()["operations"]) == len(FLOW)


def test_every_field_has_a_meaning_and_no_meaning_lacks_its_field() -> None:
    fields = {name: set(schema["properties"]) - {"v"} for name, schema in parts("{name}").items()}

    assert {name: set(meanings) for name, meanings in MEANINGS.items()} == fields


@pytest.mark.parametrize(
    ("name", "file"), [("Campaign", "campaign"), ("SendRequest", "send-request"), ("RatesSnapshot", "rates-snapshot")]
)
def test_a_record_names_its_file(name: str, file: str) -> None:
    assert kebab(name) == file


def _references(value: Any) -> list[str]:
    match value:
        case {"$ref": str(ref)}:
            return [ref]
        case dict():
            return [ref for one in value.values() for ref in _references(one)]
        case list():
            return [ref for one in value for ref in _references(one)]
        case _:
            return []


def _at(document: Any, ref: str) -> Any:
    for step in ref.removeprefix("#/").split("/"):
        document = document.get(step) if isinstance(document, dict) else None
    return document
