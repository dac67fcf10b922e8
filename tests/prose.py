"""What the prose takes from the code: the file map of ARCHITECTURE.md, the settings and the providers of the guide.

``python -m tests.prose`` writes them; tests/test_repository.py says when they are stale.
"""

import ast
import re
from dataclasses import fields
from pathlib import Path

from cli.settings import variable
from policy.settings import Settings, shown
from policy.shaping import Shape, Shaping
from schemas.generate import filled

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "schemas": "what travels",
    "policy": "what is decided",
    "streams": "where it flows",
    "agents": "who acts",
    "smtp": "what speaks SMTP",
    "k8s": "the place where senders run",
    "cli": "the operator's commands",
}
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
SETTINGS = ROOT / "docs" / "guide" / "settings.md"
SENDING = ROOT / "docs" / "guide" / "sending.md"


def modules(package: str) -> list[Path]:
    """The modules of a package, a folder after its own files."""
    found = (ROOT / package).rglob("*.py")
    return sorted((one for one in found if one.name != "__init__.py"), key=lambda one: (len(one.parts), one))


def file_map() -> str:
    """A table per package: each module, and the first sentence of its docstring."""
    return "\n\n".join(
        "\n".join(
            [f"### {package}: {meaning}", "", "| file | what it is |", "|---|---|"]
            + [f"| `{one.relative_to(ROOT).as_posix()}` | {_first_sentence(one)} |" for one in modules(package)]
        )
        for package, meaning in PACKAGES.items()
    )


def settings_table() -> str:
    """One row per setting."""
    rows = ["| setting | default | unit | meaning |", "|---|---|---|---|"]
    for known in fields(Settings):
        default = shown(known.metadata["default"])
        cells = [f"`{variable(known.name)}`", f"`{default}`" if default else "–", known.metadata["unit"] or "–"]
        rows.append("| " + " | ".join([*cells, _cell(known.metadata["meaning"])]) + " |")
    return "\n".join(rows)


def shaping_table() -> str:
    """One row per provider that is shaped, and those for all others."""
    shaping = Shaping()
    shapes = {**shaping.named, "all others": shaping.of("other"), "fixed next hops": shaping.route}
    head = "| provider | connections | messages per connection | per second | TLS | limits hold for |"
    rows = [head, "|---|---|---|---|---|---|"]
    return "\n".join(rows + [_shape_row(name, shape) for name, shape in shapes.items()])


def _shape_row(name: str, one: Shape) -> str:
    where = "the provider" if one.limits == "provider" else "each next hop"
    rate = f"{one.per_second:g}" if one.per_second else "–"
    return f"| {name} | {one.connections} | {one.messages} | {rate} | {one.tls} | {where} |"


def write() -> None:
    """Put the tables into their pages."""
    for page, name, text in (
        (ARCHITECTURE, "file map", file_map()),
        (SETTINGS, "settings", settings_table()),
        (SENDING, "shaping", shaping_table()),
    ):
        page.write_text(filled(page.read_text(encoding="utf-8"), name, text), encoding="utf-8")


def _first_sentence(module: Path) -> str:
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    return _cell(re.split(r"(?<=[.?])\s", paragraph)[0].rstrip(".").replace("``", "`"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    write()
