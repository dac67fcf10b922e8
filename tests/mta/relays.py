"""The mail servers as relays: they take mail for every domain, hand it on, and write a bounce when nobody wants it."""

import dataclasses
from collections.abc import Callable, Mapping

from tests.mta.exim import EXIM
from tests.mta.postfix import POSTFIX
from tests.mta.rig import DOMAIN, Kind, Place

OWN = "own.test"
"""The relay's own domain, with the usual mailboxes; whom it does not know there, it accepts first and bounces then."""


def relay(kind: Kind, routes: Mapping[str, int]) -> Kind:
    """The server as a relay; ``routes`` says on which port of this machine the mail of a domain is taken."""

    def configure(place: Place) -> None:
        kind.configure(place)
        _CHANGES[kind.name](place, routes)

    return dataclasses.replace(kind, configure=configure)


def _postfix(place: Place, routes: Mapping[str, int]) -> None:
    hops = ", ".join(f"{{ {domain} = smtp:[127.0.0.1]:{port} }}" for domain, port in routes.items())
    main = (place.run / "etc/postfix/main.cf").read_text().replace(DOMAIN, OWN)
    changed = f"""
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_reject_unlisted_recipient = no
transport_maps = inline:{{ {hops} }}
smtp_tls_security_level = may
"""
    place.write("etc/postfix/main.cf", _without(main, changed) + changed)
    master = place.run / "etc/postfix/master.cf"
    master.write_text(master.read_text() + "smtp unix - - n - - smtp\n")


def _without(main: str, changed: str) -> str:
    """The settings that are not changed, each with the lines that continue it."""
    names = {line.partition("=")[0].strip() for line in changed.splitlines()}
    kept: list[str] = []
    keeps = True
    for line in main.splitlines(keepends=True):
        if not line.startswith((" ", "\t")):
            keeps = line.partition("=")[0].strip() not in names
        if keeps:
            kept.append(line)
    return "".join(kept)


def _exim(place: Place, routes: Mapping[str, int]) -> None:
    file = place.run / "etc/exim4/exim4.conf"
    head, _, rest = file.read_text().replace(DOMAIN, OWN).partition("begin acl")
    _, routers, rest = rest.partition("begin routers\n")
    hops = "".join(_EXIM_ROUTER.format(number=number, domain=domain) for number, domain in enumerate(routes))
    ways = "".join(_EXIM_TRANSPORT.format(number=number, port=port) for number, port in enumerate(routes.values()))
    accepts = "begin acl\n\nrcpt:\n  accept\n\ndata:\n  accept\n\n"
    rest = rest.replace("begin transports\n", f"begin transports\n{ways}")
    file.write_text(head + accepts + routers + hops + rest)


_EXIM_ROUTER = """
to{number}:
  driver = manualroute
  domains = {domain}
  transport = by{number}
  route_list = * 127.0.0.1
  self = send
"""

_EXIM_TRANSPORT = """
by{number}:
  driver = smtp
  port = {port}
  hosts_try_fastopen =
"""

_CHANGES: dict[str, Callable[[Place, Mapping[str, int]], None]] = {POSTFIX.name: _postfix, EXIM.name: _exim}
