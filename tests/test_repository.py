"""Prose that names code is checked: files, commands, options, settings, topics, records, links, versions."""

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from jsonschema import Draft202012Validator

from cli import kafka
from cli.main import main
from cli.settings import variable
from policy import settings
from policy.settings import Settings
from schemas.codec import Malformed, decode
from schemas.json_schema import RECORDS
from schemas.topics import TOPICS
from tests import prose

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = tuple(prose.PACKAGES)
PROSE = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SETTINGS = {variable(known.name): known.name for known in fields(Settings)}

every_page = pytest.mark.parametrize("page", PROSE, ids=lambda page: page.relative_to(ROOT).as_posix())

_FENCE = re.compile(
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$|^(?P<indented>(?:    [^\n]*\n)+)", re.MULTILINE | re.DOTALL
)
_SPAN = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")


def _blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each block of code."""
    return [(one["language"] or "", one["text"] or one["indented"]) for one in _FENCE.finditer(page.read_text())]


def _spans(page: Path) -> list[str]:
    """Every piece of code within a line of prose."""
    return [" ".join(span.split()) for span in _SPAN.findall(_FENCE.sub("\n", page.read_text()))]


def _code(page: Path) -> list[str]:
    """Every line of code, wherever it stands."""
    joined = (text.replace("\\\n", " ") for _, text in _blocks(page))
    return _spans(page) + [line for text in joined for line in text.splitlines()]


def test_code_is_found_in_prose(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "One `span`.\n\n    make test\n\nA `span over\ntwo lines`.\n\n```sh\nmake `demo`\n```\nand `last`\n"
    )

    assert _spans(page) == ["span", "span over two lines", "last"]
    assert _code(page)[3:] == ["    make test", "make `demo`"]


def test_the_file_map_is_the_tree() -> None:
    section = prose.ARCHITECTURE.read_text().partition("<!-- generated: file map -->")[2].partition("<!-- end of")[0]
    mapped = re.findall(r"^\| `([^`]+\.py)` \|", section, re.MULTILINE)
    tree = {one.relative_to(ROOT).as_posix() for package in PACKAGES for one in prose.modules(package)}

    missing, gone = sorted(tree - set(mapped)), sorted(set(mapped) - tree)

    assert (missing, gone) == ([], []), (
        f"the file map of ARCHITECTURE.md lacks {missing} and names {gone}, which do not exist; "
        "run `python -m tests.prose`"
    )
    assert len(mapped) == len(tree)


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("\n", page.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in _anchors(file)):
            lost.append(target)

    assert lost == []


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@every_page
def test_paths_exist(page: Path) -> None:
    folders = (*PACKAGES, "tests", "docs", "benchmarks", "deploy", ".ci")
    named = {span for span in _spans(page) if span.startswith(tuple(f"{folder}/" for folder in folders))}

    assert sorted(path for path in named if not (ROOT / path).exists() and not list(ROOT.glob(path))) == []


@every_page
def test_make_targets_exist(page: Path) -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for line in _code(page) for target in re.findall(r"(?:^|\s)make ([a-z-]+)", line)}

    assert named - known == set()


@every_page
def test_commands_and_options_exist(page: Path) -> None:
    wrong = [f"{line.strip()!r}: {flaw}" for line in _code(page) for flaw in _flaws(line)]

    assert wrong == []


def _flaws(line: str) -> Iterator[str]:
    """What is wrong with the mailcordon commands of a line of code."""
    for found in re.finditer(r"(?:^|[\s/|;])mailcordon ((?:[a-z-]+ ?)+)([^|;#`]*)", line.replace(", `", "")):
        command: click.Command = main
        path = "mailcordon"
        for word in found[1].split():
            if not isinstance(command, click.Group):
                break
            known = command.get_command(click.Context(command), word)
            if known is None:
                yield f"{path} has no command {word}"
                return
            command, path = known, f"{path} {word}"
        options = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        for option in re.findall(r"(?<!\S)(--[a-z-]+)", found[1] + found[2]):
            if option not in {*options, "--help"}:
                yield f"{path} has no option {option}"


@pytest.mark.parametrize(
    ("line", "flaws"),
    [
        ("mailcordon why bought-list", []),
        ("mailcordon campaign aply x.json", ["mailcordon campaign has no command aply"]),
        ("docker compose run --rm cli send --campaign x", []),
        (".venv/bin/mailcordon release x --reazon y", ["mailcordon release has no option --reazon"]),
    ],
)
def test_a_wrong_command_would_be_found(line: str, flaws: list[str]) -> None:
    assert list(_flaws(line)) == flaws


@every_page
def test_settings_exist(page: Path) -> None:
    named = set(re.findall(r"\bMAILCORDON_[A-Z_]*[A-Z]\b", page.read_text()))

    assert named - set(SETTINGS) == set()


@every_page
def test_metrics_exist(page: Path) -> None:
    code = "\n".join(one.read_text() for package in PACKAGES for one in prose.modules(package))
    named = {span for span in _spans(page) if re.fullmatch(r"mailcordon_[a-z_]+", span)}

    assert sorted(metric for metric in named if metric not in code) == []


@every_page
def test_topics_exist(page: Path) -> None:
    known = {topic.name.removesuffix(".") for topic in TOPICS}
    named = {
        re.sub(r"\.<\w+>$|\.$|\.\*$", "", span) for span in _spans(page) if re.fullmatch(r"mail\.[\w.<>*-]+", span)
    }

    assert {topic for topic in named if not any(one == topic or one.startswith(f"{topic}.") for one in known)} == set()


@every_page
def test_records_in_examples_can_be_read(page: Path) -> None:
    unreadable = []
    for language, text in _blocks(page):
        if language == "json" and '"v"' in text:
            answers = [decode(record, text.encode()) for record in RECORDS]
            if all(isinstance(answer, Malformed) for answer in answers):
                unreadable.append(text)

    assert unreadable == []


@every_page
def test_python_in_prose_is_python(page: Path) -> None:
    for language, text in _blocks(page):
        if language == "python":
            compile(text, page.name, "exec")


def test_every_command_is_in_the_readme() -> None:
    text = " ".join(_spans(ROOT / "README.md"))
    known = main.list_commands(click.Context(main))
    commands = [name for name in known if not re.search(rf"mailcordon {name}\b", text)]

    assert commands == []


def test_the_guide_lists_every_setting_as_it_is() -> None:
    assert prose.settings_table() in prose.SETTINGS.read_text(), "run `python -m tests.prose`"


def test_the_table_of_providers_says_what_is_shipped() -> None:
    assert prose.shaping_table() in prose.SENDING.read_text(), "run `python -m tests.prose`"


def test_words_of_the_glossary_stand_once_and_in_order() -> None:
    words = re.findall(r"^\| \*\*(.+?)\*\* \|", (ROOT / "GLOSSARY.md").read_text(), re.MULTILINE)

    assert words == sorted(set(words))


def test_the_readme_begins_with_what_why_and_the_two_commands() -> None:
    screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:45])

    for needed in ("kubectl cordon", "**Why.**", "make demo", "make test", "mail.send.requests ──►"):
        assert needed in screen


def test_ci_runs_the_readmes_test_command_after_the_linters() -> None:
    script = ROOT / ".ci" / "run"
    commands = re.findall(r"^make ([\w-]+)", script.read_text(), re.MULTILINE)

    assert commands == ["lint", "test", "test-cluster"]
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], check=False, timeout=10).returncode == 0


def test_the_licence_is_the_one_of_the_package() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()


def test_the_changelog_speaks_of_this_version() -> None:
    assert PROJECT["version"] in (ROOT / "CHANGELOG.md").read_text()


# Containers


def test_the_compose_file_follows_its_specification() -> None:
    schema = json.loads((ROOT / "tests/fixtures/compose/compose-spec.schema.json").read_bytes())

    assert [error.message for error in Draft202012Validator(schema).iter_errors(COMPOSE)] == []


def test_images_are_pinned_by_version() -> None:
    images = {name: service["image"] for name, service in COMPOSE["services"].items()}
    images |= {
        line: line.split()[1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("FROM")
    }

    assert [name for name, image in images.items() if not re.search(r":v?\d+\.\d+\.\d+", image)] == []


def test_containers_run_the_versions_of_this_project() -> None:
    services = COMPOSE["services"]

    assert services["kafka"]["image"] == f"apache/kafka:{kafka.VERSION}"
    assert services["worker"]["image"] == settings.Settings().image == f"mailcordon:{PROJECT['version']}"


def test_every_service_knows_when_it_is_well() -> None:
    once = {"topics", "example", "cli"}

    assert {name for name, one in COMPOSE["services"].items() if "healthcheck" not in one} == once


@pytest.mark.parametrize("service", [name for name, one in COMPOSE["services"].items() if "build" in one])
def test_a_container_gets_settings_and_a_command_that_exist(service: str) -> None:
    defined = COMPOSE["services"][service]
    given = {name: str(value) for name, value in defined["environment"].items()}
    match defined:
        case {"entrypoint": [_, script]} if script.endswith(".sh"):
            lines = (ROOT / "deploy/compose" / Path(script).name).read_text().splitlines()
        case {"entrypoint": _, "command": [text]}:
            lines = text.split(";")
        case {"command": words}:
            lines = ["mailcordon " + " ".join(words)]

    settings.read({SETTINGS[name]: (value, name) for name, value in given.items()})
    assert any("mailcordon " in line for line in lines)
    assert [flaw for line in lines for flaw in _flaws(line.replace("=", " "))] == []


def test_no_service_but_the_named_is_reached_from_outside() -> None:
    ports = [port for one in COMPOSE["services"].values() for port in one.get("ports", [])]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_prometheus_scrapes_every_role() -> None:
    config = yaml.safe_load((ROOT / "deploy/compose/prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    web = {
        "worker": "MAILCORDON_WEB",
        "controller": "MAILCORDON_CONTROLLER_WEB",
        "return-path": "MAILCORDON_RETURN_PATH_WEB",
    }

    assert set(jobs) == {*web, "sender"}
    for role, name in web.items():
        port = COMPOSE["services"][role]["environment"][name].rpartition(":")[2]
        assert jobs[role]["static_configs"][0]["targets"] == [f"{role}:{port}"]


def test_the_image_runs_as_nobody_special_from_the_hashed_lock() -> None:
    text = (ROOT / "Dockerfile").read_text()

    assert "--require-hashes -r requirements.lock" in text
    assert re.search(r"^USER (\d+):\d+$", text, re.MULTILINE)
    assert text.rindex("FROM") < text.index("USER")
