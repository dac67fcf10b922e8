"""What a connection must prove before mail goes over it, as values, from nothing at all to DANE.

==========  ============================================================  ==================
demand      what must be proved                                           told as
==========  ============================================================  ==================
May         nothing: encrypted if the server can (RFC 7435)               ``opportunistic``
Encrypt     encryption, to whomever                                       ``required``
Names       a certificate of a public authority that names the MX host    ``mta-sts``
            (RFC 8461 4.1)
Dane        a certificate that the MX host's TLSA records name            ``dane``
            (RFC 7672)
==========  ============================================================  ==================

Sessions of different demands are never shared: :func:`mark` stands in the name of a next hop.
"""

from dataclasses import dataclass
from typing import Literal, assert_never

Label = Literal["opportunistic", "required", "mta-sts", "dane"]


@dataclass(frozen=True, slots=True)
class May:
    """Encrypt if the server can; ``testing``: look whether an MTA-STS policy that is being tested would hold."""

    testing: bool = False


@dataclass(frozen=True, slots=True)
class Encrypt:
    """Encrypt, or send nothing; any certificate will do."""


@dataclass(frozen=True, slots=True)
class Names:
    """Encrypt to somebody who proves to be the MX host, by the public certificate authorities."""


@dataclass(frozen=True, slots=True)
class Tlsa:
    """One TLSA record (RFC 6698 2.1): ``usage`` 2 names an authority, 3 the server itself."""

    usage: int
    selector: int
    matching: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Dane:
    """Encrypt to somebody whom ``records`` name.

    ``names`` are those that a certificate may have if a record names an authority (RFC 7672 3.2.2): the base domain
    of the records, which is also what we ask the server for, the MX host, and the domain that mail is for.
    """

    records: tuple[Tlsa, ...]
    names: tuple[str, ...]


Demand = May | Encrypt | Names | Dane

MAY = May()
TESTING = May(testing=True)
ENCRYPT = Encrypt()
NAMES = Names()


def label(demand: Demand) -> Label:
    """How results, logs and metrics call it."""
    match demand:
        case May():
            return "opportunistic"
        case Encrypt():
            return "required"
        case Names():
            return "mta-sts"
        case Dane():
            return "dane"
        case _:
            assert_never(demand)


def stronger(one: Demand, other: Demand) -> Demand:
    """The one that proves more, ``one`` when they are equal; DANE wins over MTA-STS (RFC 8461 2)."""
    return other if _strength(other) > _strength(one) else one


def _strength(demand: Demand) -> int:
    match demand:
        case May():
            return int(demand.testing)
        case Encrypt():
            return 2
        case Names():
            return 3
        case Dane():
            return 4
        case _:
            assert_never(demand)


def mark(demand: Demand) -> str:
    """What a host's name gets in the name of a next hop, so that no session is used under another demand.

    Where a record names an authority, the certificate may also name the domain that mail is for; such a session
    proves nothing to another domain.
    """
    match demand:
        case May():
            return "/testing" if demand.testing else ""
        case Dane() if any(record.usage == 2 for record in demand.records):
            return f"/dane:{demand.names[-1]}"
        case _:
            return f"/{label(demand)}"
