"""Unsubscribe links: what they may begin with, and how a token is found in what a mail program sends."""

import pytest

from policy.tokens import Keys, unsubscribe_token
from policy.unsubscribing import flaw_of_base, is_for_unsubscribing, link, mailbox, token_in

TOKEN = unsubscribe_token(
    Keys(address=b"a" * 32, return_path=b"r" * 32), campaign="c", message_id="m", address_hash="0" * 64, sent_at=0
)


@pytest.mark.parametrize(
    "base",
    [
        "https://u.shop.example",
        "https://u.shop.example/",
        "https://u.shop.example/u",
        "https://u.shop.example:8443/a/b",
    ],
)
def test_a_link_is_the_base_and_the_token(base: str) -> None:
    assert flaw_of_base(base) is None
    assert link(base, "T") == base.rstrip("/") + "/T"


@pytest.mark.parametrize(
    "base",
    [
        "http://u.shop.example/u",
        "https://u.shop.example/u?x=",
        "https://u.shop.example/u#x",
        "https://u.shop.example/u>",
        "https://u.shop.example/u\r\nBcc: x",
        "https://u.shop.example/u\n",
        "https://a@u.shop.example/u",
        "https:///u",
        "https://-.example/u",
        "https://u.shop.example/ü",
        "u.shop.example/u",
        "",
        "https://u.shop.example/" + "u" * 90,
    ],
)
def test_what_no_link_can_begin_with(base: str) -> None:
    assert flaw_of_base(base) is not None


def test_the_longest_link_is_short() -> None:
    token = unsubscribe_token(
        Keys(address=b"a", return_path=b"r"), campaign="c", message_id="x" * 128, address_hash="f" * 64, sent_at=0
    )
    assert len(link("https://" + "u" * 60 + ".shop.example/unsub", token)) < 200


@pytest.mark.parametrize(
    "subject",
    [TOKEN, f"Re: {TOKEN}", f"unsubscribe {TOKEN}.", f"<{TOKEN}>", f"  {TOKEN}\t"],
    ids=["bare", "reply", "words", "brackets", "spaces"],
)
def test_a_token_is_found_in_a_subject(subject: str) -> None:
    assert token_in(subject) == TOKEN


@pytest.mark.parametrize("subject", ["", "unsubscribe", TOKEN[:70], "x" * 500], ids=["empty", "word", "half", "long"])
def test_a_subject_without_a_token_has_none(subject: str) -> None:
    assert token_in(subject) is None


@pytest.mark.parametrize(
    ("address", "answer"),
    [
        (mailbox("bounces.shop.example"), True),
        ("UNSUB@x.example", True),
        ("unsubscribe@x.example", False),
        ("unsub", False),
    ],
)
def test_mail_that_unsubscribes_has_an_address_of_its_own(address: str, answer: object) -> None:
    assert is_for_unsubscribing(address) is answer
