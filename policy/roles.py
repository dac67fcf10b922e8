"""Role accounts: addresses of a function and not of a person; the names are data, ``roles.toml`` beside this."""

import tomllib
from functools import lru_cache
from importlib.resources import files
from typing import Literal

import msgspec

Role = Literal["never", "contact"]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    never: frozenset[str]
    contact: frozenset[str]


def role_of(local: str) -> Role | None:
    """``never``: ``abuse@``, ``no-reply@`` and the like; ``contact``: ``info@`` and the like, read by many."""
    if not _may_begin(local[:_START]) and "-" not in local:  # nearly all
        return None
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


@lru_cache(maxsize=8192)
def _may_begin(start: str) -> bool:
    """Can the name of a role account, whatever stands between its letters, begin so?"""
    return not start.isalnum() or start.lower() in _STARTS


_ROLES = _roles()
_START = 3
_STARTS = frozenset(name[:_START] for name in _ROLES)
