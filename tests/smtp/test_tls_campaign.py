"""A campaign that requires encryption, from its record to the envelope, the session and the back-off."""

import pytest

from policy.settings import Endpoint
from policy.templates import Template, compile_content
from policy.tokens import Keys
from schemas.codec import Malformed, decode
from schemas.sending import Campaign, Content, Mailbox, OutboundMessage
from smtp.attempts import Envelope, Reply
from smtp.client import Bounds, SmtpMailer
from smtp.mx import NextHops, Target
from smtp.opener import Opener
from smtp.sending.compose import Composer
from smtp.session import Session, Timeouts
from tests.smtp.tls_servers import NO_OFFER, StartTls, start_tls_server

WRITTEN = (
    b"""{"v": 1, "campaign": "c", "from": {"address": "news@shop.example"}, "return_path_domain": "b.shop.example"%s}"""
)


@pytest.mark.parametrize(
    ("said", "tls"), [(b"", "opportunistic"), (b', "tls": "require"', "require"), (b', "tls": "maybe"', None)]
)
def test_a_campaign_says_whether_it_requires_encryption(said: bytes, tls: str | None) -> None:
    read = decode(Campaign, WRITTEN % said)
    assert (None if isinstance(read, Malformed) else read.tls) == tls


@pytest.mark.parametrize("tls", ["opportunistic", "require"])
def test_its_messages_carry_it(tls: str) -> None:
    campaign = Campaign(
        campaign="c",
        from_=Mailbox(address="news@shop.example"),
        return_path_domain="b.shop.example",
        tls=tls,  # type: ignore[arg-type]  # one of the two
    )
    template = compile_content(Content(campaign="c", content="hello", subject="Hi", text="Hi"))
    assert isinstance(template, Template)
    message = OutboundMessage(message_id="m-1", address="ann@example.com", address_hash="0" * 64)
    composer = Composer(Keys(address=b"a" * 32, return_path=b"r" * 32))
    envelope = composer.envelope(message, campaign=campaign, template=template, now=1_764_000_000_000)
    assert isinstance(envelope, Envelope)
    assert envelope.must_encrypt is (tls == "require")


async def test_a_session_in_clear_refuses_its_messages_whoever_hands_them_over() -> None:
    async with start_tls_server(StartTls(ehlo=NO_OFFER)) as server:
        opener = Opener(hostname="me.example", timeouts=Timeouts(connect_s=1, command_s=1, dot_s=1))
        session = await opener.open(Target("mx.shop.test", "127.0.0.1", server.port))
        assert isinstance(session, Session)
        envelope = Envelope.checked(
            sender="b@bounces.example", recipient="ann@shop.test", data=b"\r\nx\r\n", must_encrypt=True
        )
        answer = await session.send(envelope, go=lambda: True)
        await session.quit()
    assert isinstance(answer, Reply)
    assert (answer.stage, answer.code) == ("tls", None)
    assert not any(line.startswith(b"MAIL") for line in server.heard)


async def test_a_server_without_encryption_is_left_alone_by_it() -> None:
    async with start_tls_server(StartTls(ehlo=NO_OFFER)) as server:
        where = {"*": Endpoint("127.0.0.1", server.port)}
        opener = Opener(hostname="me.example", timeouts=Timeouts(connect_s=1, command_s=1, dot_s=1))
        mailer = SmtpMailer(NextHops(where), opener, bounds=Bounds(back_off_s=5.0))
        envelope = Envelope.checked(
            sender="b@bounces.example", recipient="ann@shop.test", data=b"\r\nx\r\n", must_encrypt=True
        )
        answer = await mailer.send(envelope, go=lambda: True)
        assert isinstance(answer, Reply)
        assert (answer.stage, answer.text) == ("tls", "the server does not offer STARTTLS")
        assert mailer.closed_for_s("shop.test") > 0
        await mailer.close()
