"""Do a server's TLSA records name the certificates that it sent?  (RFC 6698 2.1, RFC 7671, RFC 7672 3.1)

Usage 3 (DANE-EE) names the server itself: its names and its dates do not matter.  Usage 2 (DANE-TA) names an
authority in the chain that the server sent, which has to have issued the rest of it, in force now, to one of the
names.  Usages 0 and 1 need public authorities, and mail servers have agreed to do without: unusable.
"""

import datetime as dt
import hashlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from smtp.tls.demand import Tlsa
from smtp.tls.der import key_of
from smtp.tls.names import named, names_others

AUTHORITY, SERVER = 2, 3
_WHOLE, _SHA256, _SHA512 = 0, 1, 2
_LENGTHS = {_SHA256: 32, _SHA512: 64}
_SHOWN = 160


def usable(records: Sequence[Tlsa]) -> tuple[Tlsa, ...]:
    """Those that can be checked; of a usage and selector only those with its strongest digest (RFC 7671 9)."""
    known = [record for record in records if _is_usable(record)]
    strongest = {(one.usage, one.selector): one.matching for one in sorted(known, key=lambda one: one.matching)}
    return tuple(one for one in known if one.matching in (_WHOLE, strongest[one.usage, one.selector]))


def _is_usable(record: Tlsa) -> bool:
    if record.usage not in (AUTHORITY, SERVER) or record.selector not in (0, 1):
        return False
    if record.matching == _WHOLE:
        return bool(record.data)
    return len(record.data) == _LENGTHS.get(record.matching)


def names_it(record: Tlsa, certificate: x509.Certificate) -> bool:
    """Does the record name this certificate, or its key?"""
    selected = key_of(certificate) if record.selector == 1 else certificate.public_bytes(Encoding.DER)
    match record.matching:
        case 1:
            return hashlib.sha256(selected).digest() == record.data
        case 2:
            return hashlib.sha512(selected).digest() == record.data
        case _:
            return selected == record.data


def why_not(
    records: Sequence[Tlsa], chain: Sequence[x509.Certificate], *, names: tuple[str, ...], now: dt.datetime
) -> str | None:
    """Why the records do not speak for the chain; None when one of them does."""
    if not chain:
        return "the server sent no certificate that can be read"
    checked = usable(records)
    server, *rest = chain
    if any(record.usage == SERVER and names_it(record, server) for record in checked):
        return None
    given = [_given(record) for record in checked if record.usage == AUTHORITY and record.matching == _WHOLE]
    candidates = [*rest, *(one for one in given if one is not None)]
    anchors = [
        one for one in candidates if any(record.usage == AUTHORITY and names_it(record, one) for record in checked)
    ]
    if not anchors:
        return "none of its TLSA records names a certificate that the server sent"
    name = named(server, names)
    if name is None:
        return names_others(server, names)
    return _why_not_issued(server, rest, anchors, name, now)


def _given(record: Tlsa) -> x509.Certificate | None:
    """The authority's certificate when the record holds all of it: the server need not send it (RFC 7671 5.2.2)."""
    if record.selector != 0:
        return None
    try:
        return x509.load_der_x509_certificate(record.data)
    except ValueError:
        return None


def _why_not_issued(
    server: x509.Certificate,
    rest: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    name: str,
    now: dt.datetime,
) -> str | None:
    verifier = (
        PolicyBuilder()
        .store(Store(list(anchors)))
        .time(now)
        .extension_policies(ca_policy=_ISSUERS, ee_policy=_SERVERS)
        .build_server_verifier(x509.DNSName(name))
    )
    try:
        verifier.verify(server, list(rest))
    except (VerificationError, ValueError) as failed:
        return f"the authority that its TLSA records name does not vouch for it: {failed}"[:_SHOWN]
    return None


def _issues(_: Policy, __: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("its issuer is no authority")


def _signs(_: Policy, __: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("its issuer may not sign certificates")


def _serves(_: Policy, __: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
    known = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    if usage is not None and not any(one in known for one in usage):
        raise ValueError("it is not for servers")


# Private authorities, which DANE is for, do not keep the rules of the public ones: RFC 5280 alone is asked for.
_ISSUERS = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _issues)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _signs)
)
_SERVERS = (
    ExtensionPolicy.permit_all()
    .require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _serves)
)
