"""A server's certificate that is read again when its files change, so that nobody has to restart for a renewal."""

import asyncio
import ssl
from pathlib import Path

import structlog

log = structlog.get_logger()

LOOK_EVERY_S = 10.0


class Certificate:
    """``context`` is for a server's next connection: after a change it is another one, with the new certificate alone.

    (A context that gets a second certificate keeps the first, too, if its key is of another kind.)
    Raises OSError (of which ssl.SSLError is one) for files that cannot be used.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._seen = self._state()
        self.context = self._fresh()

    def look(self) -> None:
        """Read the files again, if they changed; what cannot be used is told, and the old certificate stays."""
        try:
            state = self._state()
            if state == self._seen:
                return
            self.context = self._fresh()
        except OSError as failed:
            log.error("new certificate cannot be used, the old one stays", failure=str(failed))  # noqa: TRY400
        else:
            self._seen = state
            log.info("certificate read again", file=str(self._files[0]))

    async def keep(self, every_s: float = LOOK_EVERY_S) -> None:
        """Look every now and then, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            self.look()

    def _state(self) -> tuple[tuple[int, int, int], ...]:
        found = [file.stat() for file in self._files]
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in found)

    def _fresh(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(*self._files, password="")  # one with a passphrase is refused, not asked for
        return context
