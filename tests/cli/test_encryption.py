"""Encryption as the settings say it."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from cli.encryption import encryption
from cli.failures import WrongUse
from policy.settings import Settings


def test_recipients_domains_are_asked_by_default() -> None:
    made = encryption(Settings(), CollectorRegistry())

    assert made.demands is not None
    assert (made.demands._dane, made.demands._trusted, made.demands._mta_sts is not None) == (True, False, True)


@pytest.mark.parametrize(
    ("settings", "dane", "mta_sts"),
    [(Settings(mta_sts=False), True, False), (Settings(dane="off"), False, True)],
    ids=["no-mta-sts", "no-dane"],
)
def test_either_can_be_turned_off(settings: Settings, dane: bool, mta_sts: bool) -> None:
    made = encryption(settings, CollectorRegistry())

    assert made.demands is not None
    assert (made.demands._dane, made.demands._mta_sts is not None, made.resolver._for_ad) == (dane, mta_sts, dane)


def test_with_both_off_nobody_is_asked() -> None:
    assert encryption(Settings(mta_sts=False, dane="off"), CollectorRegistry()).demands is None


@pytest.mark.parametrize("content", [None, b"", b"no certificate"], ids=["missing", "empty", "nonsense"])
def test_authorities_that_cannot_be_read_are_wrong_use(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(WrongUse, match="MAILCORDON_TLS_CA_FILE"):
        encryption(Settings(tls_ca_file=file), CollectorRegistry())
