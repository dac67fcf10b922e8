"""The one relay that takes all our mail, when there is one.

It is ours to choose and to configure: it may have a private address, it knows us by user and password, and its
certificate must be valid for its name before it gets to see them (RFC 4954 4, RFC 8314 3).
"""

import functools
import ssl
from dataclasses import dataclass
from pathlib import Path

from policy.settings import Endpoint
from smtp.credentials import Credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Smarthost:
    """Where it is, how it encrypts, and who we are to it."""

    where: Endpoint
    implicit_tls: bool = False
    credentials: Credentials | None = None
    ca_file: Path | None = None

    @property
    def must_encrypt(self) -> bool:
        """Is mail held back rather than handed over in clear, or to somebody else?"""
        return self.implicit_tls or self.credentials is not None or self.ca_file is not None

    def context(self) -> ssl.SSLContext:
        """TLS with a certificate that is valid and names the smarthost."""
        return _context(self.ca_file)


@functools.cache
def _context(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
