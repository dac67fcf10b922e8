"""Providers: who takes the mail of a domain.  The domains are data, in ``providers.toml`` beside this module."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

OTHER = "other"


class Providers:
    """The provider of each known domain; ``extra`` are an installation's own, and win."""

    __slots__ = ("_by_domain",)

    def __init__(self, extra: Mapping[str, str]) -> None:
        self._by_domain = {**shipped(), **{domain.lower(): provider for domain, provider in extra.items()}}

    def of(self, domain: str) -> str:
        """The provider's short name, ``other`` for a domain that is not listed; upper case and a final dot are read."""
        found = self._by_domain.get(domain)
        if found is None:
            found = self._by_domain.get(domain.lower().removesuffix("."), OTHER)
        return found


@cache
def shipped() -> Mapping[str, str]:
    """Domain to provider as shipped; a domain that is listed twice is refused."""
    listed: dict[str, str] = {}
    table = tomllib.loads(files("policy").joinpath("providers.toml").read_text(encoding="utf-8"))
    for provider, domains in table.items():
        for domain in domains:
            if domain in listed:
                raise ValueError(f"providers.toml: {domain} is listed under {listed[domain]} and {provider}")
            listed[domain] = provider
    return listed
