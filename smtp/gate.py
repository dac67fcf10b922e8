"""Who may come in, and how much of it: the limits of the return path, with the time as an argument."""

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the return path takes from strangers.

    A client is one IPv4 address or one IPv6 /64.  Turn ``messages_per_minute`` up when one relay hands on the mail of
    a very large installation; everything that is refused for a limit is refused for now (4xx) and comes again.
    """

    connections: int = 500
    connections_per_client: int = 50
    messages_per_connection: int = 1_000
    messages_per_minute: int = 6_000
    errors_per_connection: int = 20
    messages_in_hand: int = 100
    recipients: int = 50
    message_bytes: int = 2_097_152
    idle_s: float = 300.0
    publish_s: float = 20.0


class Gate:
    """Counts connections and messages by client."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._connections: dict[str, int] = {}
        self._all = 0
        self._tokens: dict[str, tuple[float, int]] = {}

    def enter(self, client: str) -> bool:
        """Let a connection in, if there is room; every one that was let in must leave."""
        held = self._connections.get(client, 0)
        if self._all >= self._limits.connections or held >= self._limits.connections_per_client:
            return False
        self._connections[client] = held + 1
        self._all += 1
        return True

    def leave(self, client: str) -> None:
        """A connection that was let in has ended."""
        self._all -= 1
        left = self._connections[client] - 1
        if left:
            self._connections[client] = left
        else:
            del self._connections[client]

    def message(self, client: str, now: int) -> bool:
        """Whether this client may send one more message now: a bucket that fills in a minute."""
        full = float(self._limits.messages_per_minute)
        tokens, since = self._tokens.get(client, (full, now))
        tokens = min(full, tokens + max(0, now - since) / 60_000 * full)
        if tokens < 1:
            self._tokens[client] = (tokens, now)
            return False
        if len(self._tokens) > 100_000:
            self._tokens.clear()  # whoever is remembered then starts afresh, with one minute's worth
        self._tokens[client] = (tokens - 1, now)
        return True


def client_of(peer: object) -> str:
    """The client behind a socket's peer name."""
    host = str(peer[0]) if isinstance(peer, tuple) and peer else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))
    return str(address)
