"""Write the machine-readable form of the records: JSON Schemas, the AsyncAPI document, a custom resource, tables.

``python -m schemas.generate`` writes what is missing or stale and names it; with ``--check`` it only names it and
ends with 1.  This is a developer's tool, and the one module here that touches files, when it is run as a program.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from schemas.asyncapi import asyncapi
from schemas.custom_resource import as_yaml, definition
from schemas.json_schema import RECORDS, json_schema, kebab
from schemas.tables import record_tables, topic_table

ROOT = Path(__file__).resolve().parent.parent
GENERATED = "schemas/generated"
GUIDE = "docs/guide/topics.md"
CRD = "k8s/manifests/base/crd.yaml"
_DEPTH = 16  # of spec.properties in the definition of the resource


class NoPlace(Exception):  # noqa: N818 - it says what is so
    """A page has no markers for a table that belongs into it."""


def outputs(root: Path = ROOT) -> dict[str, str]:
    """Every generated file by its path below ``root``, as it should be."""
    found = {f"{GENERATED}/{kebab(record.__name__)}.schema.json": _json(json_schema(record)) for record in RECORDS}
    found[f"{GENERATED}/asyncapi.json"] = _json(asyncapi())
    page = (root / GUIDE).read_text(encoding="utf-8")
    found[GUIDE] = filled(filled(page, "topics", topic_table()), "records", record_tables())
    crd = (root / CRD).read_text(encoding="utf-8")
    found[CRD] = filled(crd, "definition", as_yaml(definition(), _DEPTH), mark="# ")
    return found


def filled(page: str, name: str, text: str, *, mark: str = "") -> str:
    """The page with ``text`` between the markers of ``name``, which begin with ``mark``."""
    start, end = f"{mark}<!-- generated: {name} -->", f"{mark}<!-- end of {name} -->"
    place = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    if not place.search(page):
        raise NoPlace(f"the page needs the lines {start} and {end}")
    return place.sub(lambda _: f"{start}\n{text}\n{end}", page)


def stale(root: Path = ROOT) -> list[str]:
    """Paths below ``root`` that differ from what they should be, or should not be there."""
    wanted = outputs(root)
    differ = [path for path, text in wanted.items() if _read(root / path) != text]
    left = [path.relative_to(root).as_posix() for path in sorted((root / GENERATED).glob("*.json"))]
    return differ + [path for path in left if path not in wanted]


def main(arguments: list[str]) -> int:
    """Write or check; the exit code."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python -m schemas.generate [--check]\n")
        return 2
    wanted, differ = outputs(), stale()
    for path in differ:
        if arguments:
            sys.stdout.write(f"stale: {path}\n")
        elif path in wanted:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(wanted[path], encoding="utf-8")
            sys.stdout.write(f"written: {path}\n")
        else:
            (ROOT / path).unlink()
            sys.stdout.write(f"removed: {path}\n")
    return 1 if arguments and differ else 0


def _json(document: dict[str, Any]) -> str:  # Any: JSON
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
