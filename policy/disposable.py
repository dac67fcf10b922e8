"""Disposable domains: those whose addresses are made to be thrown away.

The list is that of the package ``disposable-email-domains``, corrected by ``disposable.toml`` beside this module.  It
has whole domains only, and many a service hands out names below its own, so every parent of a domain is looked up.
"""

import tomllib
from functools import cache
from importlib.resources import files

import msgspec
from disposable_email_domains import blocklist

from policy.typos import is_real


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    more: list[str]
    not_disposable: frozenset[str]


def disposable_parent(domain: str) -> str | None:
    """The listed domain that this one (lower case, A-labels) is, or is below; None if there is none."""
    corrected = _file()
    name = domain
    while "." in name:
        if name in corrected.not_disposable or is_real(name):
            return None
        if name in _listed():
            return name
        name = name.partition(".")[2]
    return None


@cache
def _listed() -> frozenset[str]:
    return frozenset(blocklist).union(_file().more)


@cache
def _file() -> _File:
    raw = files("policy").joinpath("disposable.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(raw), _File)
