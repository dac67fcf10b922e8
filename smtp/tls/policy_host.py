"""Where MTA-STS policies come from: ``https://mta-sts.DOMAIN/.well-known/mta-sts.txt`` (RFC 8461 3.3).

Whoever owns a recipient's domain chooses where this connects to, so it goes to public addresses only, follows no
redirect, waits and reads only so long, and sends nothing of ours.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import aiohttp
import dns.exception
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

from policy.mta_sts import MAX_POLICY_BYTES, NoPolicy, StsPolicy, read_policy
from smtp.tls.dane import Resolver

HTTPS_PORT = 443
FETCH_TIMEOUT_S = 10.0
_PATH = "/.well-known/mta-sts.txt"


class PolicyHost:
    """Fetches policies; ``may_connect`` is asked of the very address that is then connected to."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        may_connect: Callable[[str], bool],
        ca_file: Path | None = None,
        port: int = HTTPS_PORT,
        within_s: float = FETCH_TIMEOUT_S,
    ) -> None:
        self._addresses = _Addresses(resolver, may_connect, within_s)
        self._context = ssl.create_default_context()
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        if ca_file is not None:
            self._context.load_verify_locations(ca_file)
        self._port = port
        self._within_s = within_s

    async def fetch(self, domain: str) -> StsPolicy | NoPolicy:
        """The domain's policy, or why there is none to be had."""
        try:
            async with asyncio.timeout(self._within_s):
                return await self._fetch(f"mta-sts.{domain}")
        except TimeoutError:
            return NoPolicy(f"mta-sts.{domain} did not answer within {self._within_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as failed:
            return NoPolicy(f"mta-sts.{domain} cannot be asked: {str(failed) or type(failed).__name__}")

    async def _fetch(self, host: str) -> StsPolicy | NoPolicy:
        port = None if self._port == HTTPS_PORT else self._port
        url = yarl.URL.build(scheme="https", host=host, port=port, path=_PATH)
        connector = aiohttp.TCPConnector(resolver=self._addresses, use_dns_cache=False, ssl=self._context)
        async with (
            aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
            ) as session,
            session.get(url, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as answer,
        ):
            if answer.status != 200:
                return NoPolicy(f"{host} answered with {answer.status}")
            if answer.headers.get("Content-Type") is not None and answer.content_type != "text/plain":
                return NoPolicy(f"{host} answered with {answer.content_type[:100]}, not text/plain")
            body = b""
            while part := await answer.content.read(MAX_POLICY_BYTES + 1):
                body += part
                if len(body) > MAX_POLICY_BYTES:
                    break
            return read_policy(body)


class _Addresses(AbstractResolver):
    """Addresses by our own resolver, without those that mail may not go to either."""

    def __init__(self, resolver: Resolver, may_connect: Callable[[str], bool], within_s: float) -> None:
        self._resolver = resolver
        self._may_connect = may_connect
        self._within_s = within_s

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses that may be connected to."""
        del family
        found: list[ResolveResult] = []
        for kind, of in (("A", socket.AF_INET), ("AAAA", socket.AF_INET6)):
            try:
                answer = await self._resolver.resolve(f"{host.rstrip('.')}.", kind, lifetime=self._within_s)
            except dns.exception.DNSException:
                continue
            addresses = [record.address for record in answer.rrset or ()]
            found += [
                ResolveResult(hostname=host, host=one, port=port, family=of, proto=0, flags=socket.AI_NUMERICHOST)
                for one in addresses
                if self._may_connect(one)
            ]
        if not found:
            raise OSError(errno.EADDRNOTAVAIL, f"{host} has no address that may be connected to")
        return found

    async def close(self) -> None:
        """Nothing is held."""
