"""The header of the PROXY protocol, version 2: whom a proxy is to connect to, and from which address.

The protocol is meant for the way in, where a proxy tells a server who its client is.  On the way out the roles turn:
a HAProxy that accepts it and has ``source … usesrc clientip`` takes our source for its own, and our destination for
its server's address.  It has no answer; a server that was not reached shows as a connection that is closed.
"""

import ipaddress

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_VERSION_2_PROXY = 0x21
_TCP_OVER_IPV4, _TCP_OVER_IPV6 = 0x11, 0x21

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def header(source: IPAddress, destination: IPAddress, port: int) -> bytes:
    """The header; both addresses are of one kind.  The source port is the proxy's to choose, so it is 0."""
    if source.version != destination.version:
        raise ValueError(f"source {source} and destination {destination} are of different kinds")
    family = _TCP_OVER_IPV4 if source.version == 4 else _TCP_OVER_IPV6
    addresses = source.packed + destination.packed + (0).to_bytes(2, "big") + port.to_bytes(2, "big")
    return _SIGNATURE + bytes([_VERSION_2_PROXY, family]) + len(addresses).to_bytes(2, "big") + addresses
