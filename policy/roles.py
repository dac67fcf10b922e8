"""Role accounts: addresses of a function and not of a person; the names are data, ``roles.toml`` beside this."""

import tomllib
from importlib.resources import files
from typing import Literal

import msgspec

Role = Literal["never", "contact"]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    never: frozenset[str]
    contact: frozenset[str]


def role_of(local: str) -> Role | None:
    """``never``: ``abuse@``, ``no-reply@`` and the like; ``contact``: ``info@`` and the like, read by many."""
    name = local.lower()
    if not name.isalnum():
        if name.endswith("-request"):
            return "never"
        name = name.partition("+")[0].replace(".", "").replace("-", "").replace("_", "")
    return _ROLES.get(name)


def _roles() -> dict[str, Role]:
    raw = files("policy").joinpath("roles.toml").read_text(encoding="utf-8")
    file = msgspec.convert(tomllib.loads(raw), _File)
    return {**dict.fromkeys(file.contact, "contact"), **dict.fromkeys(file.never, "never")}


_ROLES = _roles()
