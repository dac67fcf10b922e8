"""Messages: exactly the header lines that were meant, bodies that come back unchanged, nothing injected."""

import email
import email.policy
import re
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.naming import campaign_name
from schemas.sending import Campaign, Mailbox
from smtp.headers import FOLD_AT, LINE_LIMIT, encoded_words
from smtp.messages import Letterhead, Message, Unsendable, date, encode_text

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


PLAIN = ["From", "To", "Subject", "Date", "Message-ID", "Precedence", "X-Mailcordon-Campaign", "MIME-Version"]
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
