"""Files that people write are read strictly: a wrong field ends with its name and the fix."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.failures import EXIT_WRONG_USE, WrongUse
from cli.files import read_records
from schemas.sending import Campaign

GOOD: dict[str, Any] = {
    "campaign": "spring-sale",
    "from": {"address": "news@shop.example"},
    "return_path_domain": "bounces.shop.example",
}


def written(folder: Path, text: str) -> Path:
    file = folder / "campaign.json"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param({"limit": {}}, "field limit is unknown; did you mean limits?", id="misspelt"),
        pytest.param({"limits": {"trap": 1}}, "field limits.trap is unknown; did you mean trap_hit?", id="inner"),
        pytest.param({"max_age_s": "long"}, "field max_age_s of Campaign: expected `int`, got `str`", id="type"),
        pytest.param({"limits": {"complaint": 3}}, "field limits.complaint of Campaign", id="range"),
        pytest.param({"v": 2}, "field v: invalid value 2", id="version"),
        pytest.param({"in_doubt": "perhaps"}, "field in_doubt of Campaign: invalid enum value", id="choice"),
    ],
)
def test_a_wrong_field_is_named_with_the_fix(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    file = written(tmp_path, json.dumps(GOOD | change))

    with pytest.raises(WrongUse) as caught:
        read_records(file, Campaign)

    assert (sentence in caught.value.message, caught.value.exit_code) == (True, EXIT_WRONG_USE)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("{", "is not JSON: line 1, column 2", id="not-json"),
        pytest.param("[1]", "expected a JSON object, got int", id="no-object"),
        pytest.param("[]", "holds no Campaign", id="empty"),
        pytest.param("{}", "is missing the required field `campaign`", id="nothing-in-it"),
    ],
)
def test_a_file_that_is_no_record_is_explained(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(WrongUse, match=sentence.replace("`", ".")):
        read_records(written(tmp_path, text), Campaign)


def test_one_object_a_list_and_lines_are_all_read(tmp_path: Path) -> None:
    one, two = json.dumps(GOOD), json.dumps(GOOD | {"campaign": "autumn"})

    names = [
        [campaign.campaign for campaign in read_records(written(tmp_path, text), Campaign)]
        for text in (one, f"[{one},{two}]", f"{one}\n{two}\n")
    ]

    assert names == [["spring-sale"], ["spring-sale", "autumn"], ["spring-sale", "autumn"]]
