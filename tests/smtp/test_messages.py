"""Messages: exactly the header lines that were meant, bodies that come back unchanged, nothing injected."""

import base64
import email
import email.policy
import re
import time
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.naming import campaign_name
from policy.templates import compile_content
from policy.tokens import Keys, Leave, Ticket, address_hash, read_return_path, read_unsubscribe_token
from policy.unsubscribing import ONE_CLICK
from schemas.sending import Campaign, Mailbox, OutboundMessage, Var
from schemas.sending import Content as ContentRecord
from smtp.attempts import Envelope
from smtp.dkim import Key
from smtp.headers import FOLD_AT, LINE_LIMIT, encoded_words
from smtp.messages import Letterhead, Message, Unsendable, date, encode_text
from smtp.sending.compose import Composer

NOW = 1_764_000_000_000


@dataclass
class Content:
    subject: str = "Hello"
    text: str = "Dear Ann"
    html: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def letterhead(name: str = "The Shop", campaign: str = "spring-sale") -> Letterhead:
    return Letterhead(
        Campaign(
            campaign=campaign,
            from_=Mailbox(name=name, address="news@shop.example"),
            return_path_domain="bounces.shop.example",
        )
    )


def built(content: Content, *, name: str = "The Shop", to: str = "ann@example.com") -> Message:
    message = letterhead(name).message(content, to=to, message_id="<m-1.spring@shop.example>", now=NOW)
    assert isinstance(message, Message), message
    return message


def names_on_the_wire(data: bytes) -> list[str]:
    head = data.partition(b"\r\n\r\n")[0].decode()
    return [line.partition(":")[0] for line in head.split("\r\n") if not line.startswith((" ", "\t"))]


STANDARD = ["List-Id", "Feedback-ID", "Precedence", "X-Auto-Response-Suppress"]
PLAIN = ["From", "To", "Subject", "Date", "Message-ID", *STANDARD, "X-Mailcordon-Campaign", "MIME-Version"]
anything = st.text(max_size=300)
odd = st.sampled_from(["\r\nBcc: x@y.example", "\n\n.\r\n", "a\rb", "\0", "\x1b", "=?utf-8?q?x?=", "\ud800", "\u2028"])
spiced = st.lists(st.one_of(anything, odd), max_size=5).map("".join)


@given(subject=spiced, name=spiced, text=spiced, html=spiced, header=spiced)
def test_no_string_in_any_place_makes_another_header_line(
    subject: str, name: str, text: str, html: str, header: str
) -> None:
    message = letterhead(name).message(
        Content(subject, text, html, {"X-Note": header}), to="ann@example.com", message_id="<m@shop.example>", now=NOW
    )
    assert isinstance(message, Message)
    expected = [*PLAIN[:5], "X-Note", *PLAIN[5:], "Content-Type"]
    expected += [] if text and html else ["Content-Transfer-Encoding"]
    data = message.data()
    assert names_on_the_wire(data) == expected
    assert email.message_from_bytes(data).keys() == expected


@given(subject=spiced, name=spiced, text=spiced, html=spiced)
def test_every_line_ends_with_crlf_and_keeps_the_limits(subject: str, name: str, text: str, html: str) -> None:
    data = built(Content(subject, text, html), name=name).data()
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", data)
    head, _, body = data.partition(b"\r\n\r\n")
    assert max(map(len, body.split(b"\r\n"))) <= 76
    assert max(map(len, head.split(b"\r\n"))) <= LINE_LIMIT
    assert b"\0" not in data


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n")), many=st.booleans())
def test_a_body_comes_back_as_it_was(text: str, many: bool) -> None:
    text = "\n".join([text] * (3 if many else 1))
    parsed = email.message_from_bytes(built(Content(text=text or "x")).data(), policy=email.policy.default)
    raw = parsed.get_payload(decode=True)
    assert isinstance(raw, bytes)
    assert raw.decode().replace("\r\n", "\n").removesuffix("\n") == (text or "x").removesuffix("\n")


@given(subject=st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=400))
def test_a_subject_is_read_back_as_it_was(subject: str) -> None:
    parsed = email.message_from_bytes(built(Content(subject=subject)).data(), policy=email.policy.default)
    assert parsed["Subject"] == subject


@given(value=st.text(min_size=1, max_size=300))
def test_encoded_words_are_short_and_whole(value: str) -> None:
    for line in encoded_words(value).split("\r\n "):
        assert re.fullmatch(r"=\?utf-8\?[qb]\?[!->@-~]*\?=", line)
        assert len(line) <= 75


def test_a_long_unsubscribe_address_stays_in_one_piece() -> None:
    url = "<https://u.example/" + "t" * 600 + ">"
    value = f"{url}, <mailto:off@u.example?subject=off>"
    data = built(Content(headers={"List-Unsubscribe": value})).data()
    assert b"List-Unsubscribe: " + url.encode() + b",\r\n <mailto:off@u.example?subject=off>\r\n" in data


def test_long_values_are_folded_only_at_spaces() -> None:
    value = " ".join(f"word{n}" for n in range(60))
    (line,) = [f for f in built(Content(headers={"X-Words": value})).fields if f.startswith(b"X-Words")]
    assert line.replace(b"\r\n ", b" ").decode() == f"X-Words: {value}\r\n"
    assert max(map(len, line.split(b"\r\n"))) <= FOLD_AT


def test_a_value_that_no_line_can_hold_is_unsendable() -> None:
    content = Content(headers={"List-Unsubscribe": "<https://u.example/" + "t" * 1000 + ">"})
    refused = letterhead().message(content, to="ann@example.com", message_id="<m@x>", now=NOW)
    assert isinstance(refused, Unsendable)
    assert refused.reason == "bad_header"
    assert "List-Unsubscribe" in refused.explain


def test_a_header_that_is_too_large_is_unsendable() -> None:
    content = Content(headers={f"X-{n}": "word " * 3000 for n in range(5)})
    refused = letterhead().message(content, to="ann@example.com", message_id="<m@x>", now=NOW)
    assert isinstance(refused, Unsendable)
    assert refused.reason == "header_too_large"


@pytest.mark.parametrize(
    "name",
    ["From", "bcc", "DKIM-Signature", "content-type", "Subject", "Message-ID", "To", "x-mailcordon-campaign"],
)
def test_a_content_cannot_replace_what_is_ours(name: str) -> None:
    assert names_on_the_wire(built(Content(headers={name: "mallory@evil.example"})).data()).count(name) <= 1
    assert b"mallory" not in built(Content(headers={name: "mallory@evil.example"})).data()


def test_the_same_header_in_two_spellings_is_written_once() -> None:
    data = built(Content(headers={"List-Id": "<a.example>", "list-id": "<b.example>"})).data()
    assert data.lower().count(b"list-id:") == 1


def test_unsubscribe_addresses_with_other_letters_become_percent_codes() -> None:
    data = built(Content(headers={"List-Unsubscribe": "<https://u.example/?n=Zoë>"})).data()
    assert b"List-Unsubscribe: <https://u.example/?n=Zo%C3%AB>\r\n" in data


def test_half_a_character_in_an_unsubscribe_address_is_replaced_as_elsewhere() -> None:
    data = built(Content(headers={"List-Unsubscribe": "<https://u.example/?n=\ud800>"})).data()
    assert b"List-Unsubscribe: <https://u.example/?n=?>\r\n" in data


def test_a_reply_to_name_is_encoded_and_its_address_is_not() -> None:
    data = built(Content(headers={"Reply-To": "Zoë <zoe@shop.example>"})).data()
    assert b"Reply-To: =?utf-8?q?Zo=C3=AB?= <zoe@shop.example>\r\n" in data


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("", b"From: news@shop.example"),
        ("The Shop", b"From: The Shop <news@shop.example>"),
        ('The "Shop", Inc.', rb'From: "The \"Shop\", Inc." <news@shop.example>'),
        ("Café", b"From: =?utf-8?q?Caf=C3=A9?= <news@shop.example>"),
        ("店", b"From: =?utf-8?b?5bqX?= <news@shop.example>"),
        ("a\r\nBcc: b@c.example", b'From: "a  Bcc: b@c.example" <news@shop.example>'),
    ],
    ids=["none", "plain", "quoted", "mostly-ascii", "other-script", "injection"],
)
def test_from_names(name: str, shown: bytes) -> None:
    assert shown + b"\r\n" in built(Content(), name=name).data()


def test_text_and_html_are_alternatives_in_this_order() -> None:
    parsed = email.message_from_bytes(built(Content(text="a=b", html="<p>é</p>")).data(), policy=email.policy.default)
    assert parsed.get_content_type() == "multipart/alternative"
    assert [(part.get_content_type(), part.get_content().strip()) for part in parsed.iter_parts()] == [
        ("text/plain", "a=b"),
        ("text/html", "<p>é</p>"),
    ]


@given(text=spiced, html=spiced)
def test_no_body_ends_its_part_early(text: str, html: str) -> None:
    text, html = text + "\n--=_mailcordon--\n", html + "\r\n--=_mailcordon\r\n"
    parsed = email.message_from_bytes(built(Content(text=text, html=html)).data(), policy=email.policy.default)
    assert len(list(parsed.iter_parts())) == 2
    assert not parsed.defects


def test_mail_is_marked_as_bulk_and_by_the_campaigns_name_not_its_id() -> None:
    mallory = "spring\r\nBcc: x@y.example"
    message = letterhead(campaign=mallory).message(Content(), to="a@b.example", message_id="<m@x>", now=NOW)
    assert isinstance(message, Message)
    assert b"Precedence: bulk\r\n" in message.fields
    assert f"X-Mailcordon-Campaign: {campaign_name(mallory)}\r\n".encode() in message.fields


def test_a_content_may_set_its_own_precedence() -> None:
    assert b"Precedence: list\r\n" in built(Content(headers={"Precedence": "list"})).fields
    assert b"Precedence: bulk\r\n" not in built(Content(headers={"Precedence": "list"})).fields


@given(second=st.integers(0, 4_000_000_000))
def test_dates_say_the_second_that_was_meant(second: int) -> None:
    parsed = email.utils.parsedate_to_datetime(date(second))
    assert parsed.timestamp() == second
    assert time.strftime("%a", time.gmtime(second)) == date(second)[:3]


def test_a_message_built_after_another_one_is_the_same_as_alone() -> None:
    head = letterhead()
    contents = [Content(text=f"Dear {n}", html=f"<p>{n}</p>", subject=f"S{n}") for n in (1, 2, 1)]
    together = [head.message(c, to="a@b.example", message_id="<m@x>", now=NOW) for c in contents]
    alone = [letterhead().message(c, to="a@b.example", message_id="<m@x>", now=NOW) for c in contents]
    assert together == alone


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("plain", b"quoted-printable"),
        ("déjà vu, mostly ASCII text", b"quoted-printable"),
        ("こんにちは世界", b"base64"),
    ],
    ids=["ascii", "latin", "japanese"],
)
def test_the_shorter_encoding_is_taken(text: str, encoding: bytes) -> None:
    assert encode_text(text)[0] == encoding


def test_other_letters_in_the_recipient_stay_as_they_are() -> None:
    assert "To: zoë@example.com\r\n".encode() in built(Content(), to="zoë@example.com").fields


REAL_KEYS = Keys(address=b"a" * 32, return_path=b"r" * 32)
ANN = address_hash(REAL_KEYS, "ann@example.com")
SIGNING = Key("shop.example", "s1", rsa.generate_private_key(public_exponent=65537, key_size=2048))
LINK = "https://u.shop.example/u"


def public_key(_name: bytes, timeout: float = 5) -> bytes:
    del timeout
    der = SIGNING.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(der)


def sent(
    *,
    subject: str = "Hello {{name}}",
    text: str = "Dear {{name}}",
    html: str = "",
    headers: dict[str, str] | None = None,
    url: str | None = LINK,
    signed: bool = True,
    given: dict[str, Var] | None = None,
    to: str = "ann@example.com",
    **campaign: Any,
) -> bytes | Unsendable:
    """What the sender would send for one recipient, through every step of it."""
    fields: dict[str, Any] = {
        "campaign": "spring-sale",
        "tenant": "shop",
        "from_": Mailbox(name="The Shop", address="news@shop.example"),
        "return_path_domain": "bounces.shop.example",
        "unsubscribe_url": url,
    }
    template = compile_content(
        ContentRecord(campaign="c", content="x", subject=subject, text=text, html=html, headers=headers or {})
    )
    message = OutboundMessage(message_id="m-1", address=to, address_hash=ANN, vars=given or {"name": "Ann"})
    composer = Composer(REAL_KEYS, find_keys=lambda _: (SIGNING,) if signed else ())
    envelope = composer.envelope(message, campaign=Campaign(**fields | campaign), template=template, now=NOW)
    return envelope.data if isinstance(envelope, Envelope) else envelope


def parsed(data: bytes | Unsendable) -> EmailMessage:
    assert isinstance(data, bytes), data
    return email.message_from_bytes(data, policy=email.policy.default)


def test_a_campaign_with_links_says_how_to_unsubscribe_in_one_click() -> None:
    data = sent(html='<a href="{{unsubscribe_url}}">leave</a>', text="Leave: {{unsubscribe_url}}")
    found = re.search(
        rb"\r\nList-Unsubscribe: <https://u\.shop\.example/u/([\w-]+)>,\r\n"
        rb" <mailto:unsub@bounces\.shop\.example\?subject=([\w-]+)>\r\n"
        rb"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
        data if isinstance(data, bytes) else b"",
    )
    assert found, data
    assert found[1] == found[2]
    leave = read_unsubscribe_token(REAL_KEYS, found[1].decode())
    assert isinstance(leave, Leave)
    assert (leave.message_id, leave.address_hash) == ("m-1", ANN)
    assert leave.sent_at == NOW // 1000 * 1000
    url = f"{LINK}/{found[1].decode()}"
    plain, page = parsed(data).iter_parts()
    assert plain.get_content().strip() == f"Leave: {url}"
    assert page.get_content().strip() == f'<a href="{url}">leave</a>'


def test_another_implementation_verifies_every_new_field_and_notices_its_change() -> None:
    data = sent()
    assert isinstance(data, bytes)
    assert dkim.verify(data, dnsfunc=public_key)
    for name in (
        b"List-Unsubscribe",
        b"List-Unsubscribe-Post",
        b"List-Id",
        b"Feedback-ID",
        b"CFBL-Address",
        b"CFBL-Feedback-ID",
    ):
        changed = data.replace(b"\r\n" + name + b": ", b"\r\n" + name + b": x")
        assert changed != data, name
        assert not dkim.verify(changed, dnsfunc=public_key), name


def test_a_long_link_is_signed_and_intact() -> None:
    own = "<https://u.shop.example/" + "t" * 800 + ">, <mailto:off@shop.example>"
    data = sent(headers={"List-Unsubscribe": own})
    assert isinstance(data, bytes)
    assert b"<https://u.shop.example/" + b"t" * 800 + b">" in data
    assert dkim.verify(data, dnsfunc=public_key)


@pytest.mark.parametrize(
    ("own", "url", "list_unsubscribe", "post"),
    [
        ({}, LINK, LINK, True),
        ({}, None, None, False),
        ({"List-Unsubscribe": "<https://mine.example>"}, LINK, "https://mine.example", False),
        (
            {"List-Unsubscribe": "<https://mine.example>", "List-Unsubscribe-Post": ONE_CLICK},
            LINK,
            "https://mine.example",
            True,
        ),
        ({"List-Unsubscribe-Post": ONE_CLICK}, None, None, False),
        ({"List-Unsubscribe-Post": ONE_CLICK}, LINK, LINK, True),
    ],
    ids=["ours", "none", "own", "own-one-click", "post-without-link", "post-with-ours"],
)
def test_one_click_is_promised_where_it_works(
    own: dict[str, str], url: str | None, list_unsubscribe: str | None, post: object
) -> None:
    message = parsed(sent(headers=own, url=url))
    assert message.get_all("List-Unsubscribe-Post", []) == ([ONE_CLICK] if post else [])
    found = message.get_all("List-Unsubscribe", [])
    assert len(found) == (list_unsubscribe is not None)
    assert all(one.startswith(f"<{list_unsubscribe}") for one in found)


def test_a_content_that_needs_a_link_is_not_sent_without_one() -> None:
    refused = sent(text="Leave: {{unsubscribe_url}}", url=None)
    assert isinstance(refused, Unsendable)
    assert refused.reason == "no_unsubscribe_url"


def test_the_standard_fields_of_bulk_mail() -> None:
    message = parsed(sent())
    name = campaign_name("spring-sale")
    assert message["Feedback-ID"] == f"{name}:shop:bulk:mailcordon"
    assert message["List-Id"] == "<shop.shop.example>"
    assert message["Precedence"] == "bulk"
    assert message["X-Auto-Response-Suppress"] == "OOF, AutoReply"
    assert message["CFBL-Address"] == "fbl@bounces.shop.example; report=arf"
    local = message["CFBL-Feedback-ID"]
    ticket = read_return_path(REAL_KEYS, f"{local}@bounces.shop.example", now=NOW)
    assert isinstance(ticket, Ticket)
    assert ticket.message_id == "m-1"


@pytest.mark.parametrize(
    "name", ["List-Id", "Feedback-ID", "Precedence", "X-Auto-Response-Suppress", "CFBL-Address", "List-Unsubscribe"]
)
def test_what_a_content_brings_itself_is_not_written_twice(name: str) -> None:
    message = parsed(sent(headers={name.upper(): "<mine>"}))
    assert message.get_all(name) == ["<mine>"]


@pytest.mark.parametrize("tenant", ["a:b", "x" * 100, "bulk", "mailcordon", "Zoë\r\nBcc: x", "", campaign_name("c")])
def test_identifiers_of_the_feedback_loop_are_four_different_words(tenant: str) -> None:
    value = parsed(sent(campaign="c", tenant=tenant))["Feedback-ID"]
    words = value.split(":")
    assert len(set(words)) == 4
    assert all(re.fullmatch(r"[A-Za-z0-9-]{1,63}", word) for word in words)


@pytest.mark.parametrize(
    ("changed", "has"),
    [
        ({}, True),
        ({"signed": False}, False),
        ({"return_path_domain": "bounces.other.example"}, False),
        ({"return_path_domain": "evilshop.example"}, False),
        ({"return_path_domain": "shop.example"}, True),
        ({"from_": Mailbox(address="a@other.example")}, False),
        ({"from_": Mailbox(address="a@news.shop.example")}, False),
    ],
    ids=["below", "unsigned", "other-return-path", "only-looks-below", "same", "other-from", "signed-from-above"],
)
def test_complaints_are_asked_for_where_a_provider_would_believe_it(changed: dict[str, Any], has: object) -> None:
    message = parsed(sent(**changed))
    assert (message["CFBL-Address"] is not None) is has
    assert (message["CFBL-Feedback-ID"] is not None) is has


@pytest.mark.parametrize(
    ("changed", "needs"),
    [
        ({"from_": Mailbox(name="Zoë", address="news@müller.example")}, False),
        ({"headers": {"Reply-To": "Zoë <help@müller.example>, ann@shop.example"}}, False),
        ({"headers": {"Reply-To": "zoë@shop.example"}}, True),
        ({"subject": "Zoë", "headers": {"X-Note": "Zoë", "Organization": "Zoë", "List-Id": "Zoë <z.example>"}}, False),
        ({"to": "zoë@example.com"}, True),
    ],
    ids=["from-domain", "reply-to-domain", "reply-to-local", "texts", "recipient"],
)
def test_only_an_address_with_other_letters_before_the_at_needs_smtputf8(
    changed: dict[str, Any], needs: object
) -> None:
    data = sent(**changed)
    assert isinstance(data, bytes)
    assert (not data.isascii()) is needs


def test_a_reply_to_that_is_no_address_is_unsendable() -> None:
    refused = sent(headers={"Reply-To": "Zoë <nobody>"})
    assert isinstance(refused, Unsendable)
    assert refused.reason == "bad_header"


def test_a_look_alike_of_an_encoded_word_is_shown_as_it_is() -> None:
    fake = "=?utf-8?q?=0D=0ABcc=3A_x?="
    message = parsed(
        sent(
            subject="{{v}}",
            text="x",
            headers={"Comments": "{{v}}", "Reply-To": "{{v}} <a@b.example.com>"},
            given={"v": fake, "name": "Ann"},
        )
    )
    assert message["Subject"] == fake
    assert message["Comments"] == fake
    assert message["Reply-To"].addresses[0].display_name == fake


NASTY = st.sampled_from(
    ["\r\nBcc: x@y.example", "\r", "\n", "\0", "\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "=?utf-8?q?=0A?="]
)
WILD = st.lists(st.one_of(st.text(max_size=40), NASTY, st.just("long" * 300)), max_size=4).map("".join)
NAMES = ("X-Note", "Comments", "List-Id", "Organization", "Reply-To", "Feedback-ID", "List-Unsubscribe", "CFBL-Address")


@settings(max_examples=200)
@given(
    subject=WILD,
    text=WILD,
    html=WILD,
    name=WILD.map(lambda one: one[:200]),
    to=st.sampled_from(["ann@example.com", "zoë@example.com"]),
    headers=st.dictionaries(st.sampled_from(NAMES), WILD, max_size=4),
)
def test_whatever_is_written_the_message_has_the_fields_that_were_meant(
    subject: str, text: str, html: str, name: str, to: str, headers: dict[str, str]
) -> None:
    """Past every check of contents and values: it parses to exactly these fields, in lines that keep to the rules."""
    campaign = Campaign(
        campaign=name or "c",
        tenant=name or "t",
        from_=Mailbox(name=name, address="news@shop.example"),
        return_path_domain="bounces.shop.example",
        unsubscribe_url=LINK,
    )
    message = Letterhead(campaign, signed_by="shop.example").message(
        Content(subject, text, html, headers),
        to=to,
        message_id="<m@shop.example>",
        now=NOW,
        unsubscribe_token="t" * 99,
        return_path="b+abc@bounces.shop.example",
    )
    if isinstance(message, Unsendable):
        assert any(len(one) > 900 or "Reply-To" in message.explain for one in headers.values())
        return
    data = message.data()
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\0", data)
    assert max(map(len, data.split(b"\r\n"))) <= LINE_LIMIT
    ours = ["List-Unsubscribe", "List-Unsubscribe-Post", *STANDARD, "CFBL-Address", "CFBL-Feedback-ID"]
    own = {one.lower() for one in headers}
    if "list-unsubscribe" in own:
        ours.remove("List-Unsubscribe-Post")
    if "cfbl-address" in own:
        ours.remove("CFBL-Feedback-ID")
    expected = [*PLAIN[:5], *headers, *(one for one in ours if one.lower() not in own), *PLAIN[-2:], "Content-Type"]
    expected += [] if text and html else ["Content-Transfer-Encoding"]
    assert names_on_the_wire(data) == expected
    for policy in (email.policy.compat32, email.policy.default):
        assert email.message_from_bytes(data, policy=policy).keys() == expected


@given(value=WILD, place=st.sampled_from(["subject", "text", "html", "X-Note", "Comments", "List-Id", "Feedback-ID"]))
def test_whatever_a_recipient_brings_is_refused_or_stays_in_its_place(value: str, place: str) -> None:
    def with_value(one: str) -> dict[str, Any]:
        return {place: one} if place in {"subject", "text", "html"} else {"headers": {place: f"<{one}>"}}

    usual = sent(signed=False, **with_value("x"))
    data = sent(signed=False, given={"v": value, "name": "Ann"}, **with_value("{{v}}"))
    if isinstance(data, Unsendable):
        assert data.reason == "bad_variable"
        return
    assert isinstance(usual, bytes)
    assert max(map(len, data.split(b"\r\n"))) <= LINE_LIMIT
    if value or place != "html":  # an empty part is left out, and its type with it
        assert names_on_the_wire(data) == names_on_the_wire(usual)
