"""The names in a certificate, and whether one is meant by them (RFC 6125 6.4, as RFC 8461 4.1 asks for)."""

from cryptography import x509

_SHOWN = 3


def presented(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names of the certificate, in lower case; the common name is no name any more (RFC 6125 6.4.4)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return tuple(name.lower() for name in names.get_values_for_type(x509.DNSName))
    except (x509.ExtensionNotFound, ValueError):
        return ()


def matches(pattern: str, host: str) -> bool:
    """Does a presented name mean the host?  ``*`` may stand for the whole first label, not for a part, not for two.

    A wildcard directly below a top-level domain means nobody.
    """
    pattern, host = pattern.lower(), host.lower().rstrip(".")
    if not pattern.startswith("*."):
        return bool(host) and pattern == host
    label, _, parent = host.partition(".")
    return bool(label) and "." in parent and pattern[2:] == parent


def named(certificate: x509.Certificate, hosts: tuple[str, ...]) -> str | None:
    """The first of the hosts that the certificate names."""
    names = presented(certificate)
    return next((host for host in hosts if any(matches(name, host) for name in names)), None)


def names_others(certificate: x509.Certificate, hosts: tuple[str, ...]) -> str:
    """The sentence when it names none of the hosts."""
    names = presented(certificate)
    if not names:
        return f"certificate names no host, not {hosts[0]}"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"certificate names {', '.join(names[:_SHOWN])}{more}, not {hosts[0]}"
