"""What-if: a file of limits, laid over those in force, for all campaigns, for some tenants, for some campaigns."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from cli.failures import WrongUse
from schemas.sending import Campaign, Limits

_OF_LIMITS = tuple(msgspec.structs.fields(Limits))
_OF_CAMPAIGN = ("pristine_trap",)
_KNOWN = (*(one.encode_name for one in _OF_LIMITS), *_OF_CAMPAIGN)
_TABLES = ("tenant", "campaign")
_LONGEST_FILE = 1 << 20

Fields = Mapping[str, Any]  # Any: numbers and words, as they stand in the file


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Other limits than those in force; whatever is not named stays as it is."""

    everywhere: Fields = field(default_factory=dict)
    of_tenant: Mapping[str, Fields] = field(default_factory=dict)
    of_campaign: Mapping[str, Fields] = field(default_factory=dict)

    def applied(self, campaign: Campaign) -> Campaign:
        """The campaign with these limits: what is said of itself wins over its tenant, that over all."""
        given = {
            **self.everywhere,
            **self.of_tenant.get(campaign.tenant, {}),
            **self.of_campaign.get(campaign.campaign, {}),
        }
        if not given:
            return campaign
        own = {name: given[name] for name in _OF_CAMPAIGN if name in given}
        rest = {name: value for name, value in given.items() if name not in _OF_CAMPAIGN}
        limits = msgspec.convert(msgspec.to_builtins(campaign.limits) | rest, Limits)
        return msgspec.structs.replace(campaign, limits=limits, **own)


def read_limits(file: Path) -> WhatIf:
    """The limits of a file, TOML or JSON; what cannot be meant ends the command, with the field and the fix."""
    given = _object(file)
    tables: dict[str, dict[str, Fields]] = {}
    for name in _TABLES:
        table = given.pop(name, {})
        if not isinstance(table, dict):
            raise WrongUse(f"{file}: field {name}: expected a table of limits by {name}, such as [{name}.NAME]")
        tables[name] = {one: _checked(file, f"{name}.{one}.", fields) for one, fields in table.items()}
    found = WhatIf(_checked(file, "", given), tables["tenant"], tables["campaign"])
    if not (found.everywhere or any(found.of_tenant.values()) or any(found.of_campaign.values())):
        raise WrongUse(f"{file} holds no limits; known are: {', '.join(_KNOWN)}")
    return found


def _object(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _LONGEST_FILE:
            raise WrongUse(f"{file} is longer than 1 MiB; that is no file of limits")
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as wrong:
        raise WrongUse(f"{file}: {wrong}") from wrong
    is_json = text.lstrip().startswith("{")
    try:
        found = msgspec.json.decode(text) if is_json else tomllib.loads(text)
    except (msgspec.DecodeError, tomllib.TOMLDecodeError, RecursionError) as broken:
        raise WrongUse(f"{file} is not {'JSON' if is_json else 'TOML'}: {broken}") from broken
    if not isinstance(found, dict):
        raise WrongUse(f"{file}: expected an object of limits, got {type(found).__name__}")
    return found


def _checked(file: Path, path: str, fields: object) -> Fields:
    if not isinstance(fields, dict):
        raise WrongUse(f"{file}: field {path.rstrip('.')}: expected a table of limits, got {type(fields).__name__}")
    for name in fields:
        if name not in _KNOWN:
            near = difflib.get_close_matches(name, [*_KNOWN, *_TABLES], n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(_KNOWN)}"
            raise WrongUse(f"{file}: field {path}{name} is unknown; {hint}")
    try:
        msgspec.convert({name: value for name, value in fields.items() if name not in _OF_CAMPAIGN}, Limits)
        msgspec.convert({name: value for name, value in fields.items() if name in _OF_CAMPAIGN}, _Own)
    except msgspec.ValidationError as wrong:
        what, _, where = str(wrong).partition(" - at `$.")
        name = where.rstrip("`")
        raise WrongUse(f"{file}: field {path}{name}: {what[0].lower()}{what[1:]}") from wrong
    return fields


_Own = msgspec.defstruct(
    "_Own",
    [(one.name, one.type, one.default) for one in msgspec.structs.fields(Campaign) if one.name in _OF_CAMPAIGN],
)
