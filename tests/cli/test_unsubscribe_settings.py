"""What an operator says about unsubscribe links, and is told when it cannot be meant."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cli.failures import WrongUse
from cli.main import main
from cli.return_path_role import _certificate
from policy.registering import with_link
from policy.settings import Settings
from schemas.sending import Campaign, Mailbox
from smtp.certificates import Certificate
from tests.smtp.authority import identity

CAMPAIGN = {"v": 1, "campaign": "c", "from": {"address": "news@shop.net"}, "return_path_domain": "b.shop.net"}


@pytest.mark.parametrize(
    ("own", "setting", "becomes"),
    [
        (None, None, None),
        (None, "https://u.all.net", "https://u.all.net"),
        ("https://u.own.net", "https://u.all.net", "https://u.own.net"),
    ],
    ids=["none", "the-installations", "its-own"],
)
def test_a_campaign_without_a_link_of_its_own_gets_the_installations(
    own: str | None, setting: str | None, becomes: str | None
) -> None:
    one = Campaign(
        campaign="c", from_=Mailbox(address="news@shop.net"), return_path_domain="b.shop.net", unsubscribe_url=own
    )
    assert with_link(one, Settings(unsubscribe_url=setting).unsubscribe_url).unsubscribe_url == becomes


@pytest.mark.parametrize("url", ["http://u.shop.net/u", "https://u.shop.net/u?x", "https://u.shop.net/u\r\nX: y"])
def test_a_campaign_whose_links_nobody_could_follow_is_not_applied(tmp_path: Path, url: str) -> None:
    file = tmp_path / "campaign.json"
    file.write_text(json.dumps(CAMPAIGN | {"unsubscribe_url": url}))
    result = CliRunner().invoke(main, ["campaign", "apply", str(file), "--kafka", "127.0.0.1:1"])
    assert result.exit_code == 2
    assert "field unsubscribe_url of campaign c: is not https://" in result.output


def test_a_setting_that_no_link_can_begin_with_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "campaign.json"
    file.write_text(json.dumps(CAMPAIGN))
    result = CliRunner().invoke(main, ["campaign", "apply", str(file), "--unsubscribe-url", "http://x.net"])
    assert result.exit_code == 2
    assert "unsubscribe" in result.output
    assert "is not https://" in result.output


def files(folder: Path, *, fit: bool = True) -> dict[str, Path]:
    one, other = identity("u.shop.example"), identity("u.shop.example")
    certificate, key = folder / "tls.crt", folder / "tls.key"
    certificate.write_bytes(one.pem)
    key.write_bytes((one if fit else other).key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return {"unsubscribe_certificate": certificate, "unsubscribe_key": key}


def test_a_certificate_makes_it_https(tmp_path: Path) -> None:
    assert isinstance(_certificate(Settings(**files(tmp_path))), Certificate)  # type: ignore[arg-type]
    assert _certificate(Settings(unsubscribe_plain_http=True)) is None


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({}, "needs unsubscribe_certificate and unsubscribe_key"),
        ({"unsubscribe_certificate": None}, "belong together"),
        ({"unsubscribe_plain_http": True}, "cannot both be meant"),
        ({"unsubscribe_key": Path("/nonexistent")}, "cannot be used"),
    ],
    ids=["in-clear-by-mistake", "half", "both", "missing-file"],
)
def test_what_cannot_be_meant_is_said_at_start(tmp_path: Path, wrong: dict[str, object], says: str) -> None:
    given = wrong if not wrong else files(tmp_path) | wrong
    with pytest.raises(WrongUse, match=says):
        _certificate(Settings(**given))  # type: ignore[arg-type]


def test_a_key_that_does_not_fit_is_said_at_start(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="cannot be used"):
        _certificate(Settings(**files(tmp_path, fit=False)))  # type: ignore[arg-type]
