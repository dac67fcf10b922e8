"""What servers mean: the words before the codes, and nothing but a dead address is ever suppressed."""

import re
import tomllib
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.replies import Reading, RuleBook, category_of, classify, flaw_of_pattern, shipped

# provider, code, enhanced, text, category
TEXTS: dict[str, tuple[str, int | None, str | None, str, str]] = {
    "gmail_unknown_over_two_lines": (
        "google",
        550,
        "5.1.1",
        "5.1.1 The email account that you tried to reach does not\n5.1.1 exist. Please try double-checking",
        "invalid_recipient",
    ),
    "gmail_disabled": (
        "google",
        550,
        "5.2.1",
        "5.2.1 The email account that you tried to reach is disabled.",
        "inactive_mailbox",
    ),
    "gmail_full": ("google", 452, "4.2.2", "The recipient's inbox is out of storage space.", "mailbox_full"),
    "gmail_full_for_good": (
        "google",
        552,
        "5.2.2",
        "The recipient's inbox is out of storage space and inactive.",
        "mailbox_full_dead",
    ),
    "gmail_receiving_too_fast": (
        "google",
        450,
        "4.2.1",
        "The user you are trying to contact is receiving mail too quickly.",
        "recipient_rate",
    ),
    "gmail_unusual_rate": (
        "google",
        421,
        "4.7.28",
        "4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your IP address.",
        "rate_limited_ip",
    ),
    "gmail_unusual_rate_for_a_company_domain": (
        "other",
        421,
        "4.7.28",
        "4.7.28 Gmail has detected an unusual rate of unsolicited mail",
        "rate_limited_ip",
    ),
    "gmail_domain_rate": (
        "google",
        421,
        "4.7.28",
        "unusual rate of mail with your DKIM domain [shop.example]",
        "rate_limited_domain",
    ),
    "gmail_low_reputation_ip": (
        "google",
        550,
        "5.7.1",
        "likely suspicious due to the very low reputation of the sending IP address",
        "reputation_ip",
    ),
    "gmail_low_reputation_domain": (
        "google",
        421,
        "4.7.0",
        "suspicious due to the very low reputation of the sending domain",
        "reputation_domain",
    ),
    "gmail_unsolicited": (
        "google",
        550,
        "5.7.1",
        "Our system has detected that this message is likely unsolicited mail.",
        "spam_content",
    ),
    "gmail_dmarc": ("google", 550, "5.7.26", "This mail has been blocked: DMARC policy", "auth_failure"),
    "microsoft_s3150": (
        "microsoft",
        550,
        "5.7.1",
        "Unfortunately, messages from [192.0.2.1] weren't sent. part of their network is on our block list (S3150).",
        "reputation_ip",
    ),
    "microsoft_rp_001": ("microsoft", 421, None, "RP-001 The mail server IP exceeded the rate", "rate_limited_ip"),
    "microsoft_rp_003": ("microsoft", 421, None, "RP-003 exceeded the number of connections", "too_many_connections"),
    "microsoft_sc_001": ("microsoft", 550, None, "SC-001 rejected by Outlook.com for policy", "reputation_ip"),
    "microsoft_sc_002": ("microsoft", 550, None, "SC-002 rejected for policy reasons", "namespace_mining"),
    "microsoft_sc_003": ("microsoft", 550, None, "SC-003 (DY-001)", "blocklisted_ip"),
    "microsoft_bulk_rules": ("microsoft", 550, "5.7.515", "Access denied, sending domain shop.example", "auth_failure"),
    "microsoft_banned": (
        "microsoft",
        550,
        "5.7.606",
        "Access denied, banned sending IP [192.0.2.1]",
        "blocklisted_ip",
    ),
    "exchange_unknown": (
        "other",
        550,
        "5.4.1",
        "Recipient address rejected: Access denied. AS(201806281)",
        "invalid_recipient",
    ),
    "yahoo_tss04": (
        "yahoo",
        421,
        "4.7.0",
        "[TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume",
        "reputation_ip",
    ),
    "yahoo_tss09": (
        "yahoo",
        553,
        "5.7.2",
        "[TSS09] All messages from 192.0.2.1 will be permanently deferred",
        "reputation_ip_hard",
    ),
    "yahoo_unknown": (
        "yahoo",
        554,
        None,
        "delivery error: dd This user doesn't have a yahoo.com account",
        "invalid_recipient",
    ),
    "spamhaus": (
        "other",
        554,
        "5.7.1",
        "Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org; https://www.spamhaus.org/query/ip/",
        "blocklisted_ip",
    ),
    "spamhaus_dbl": ("apple", 554, "5.7.1", "domain present in the Spamhaus DBL", "blocklisted_domain"),
    "spamcop": ("other", 550, None, "blocked, see https://www.spamcop.net/bl.shtml?192.0.2.1", "blocklisted_ip"),
    "barracuda": ("other", 554, None, "192.0.2.1 blocked using b.barracudacentral.org", "blocklisted_ip"),
    "some_list": ("other", 554, "5.7.1", "Client host [192.0.2.1] blocked using some.list.example", "blocklisted_ip"),
    "cloudmark": ("other", 554, None, "see https://csi.cloudmark.com/en/reset/", "reputation_ip"),
    "postgrey": ("other", 450, "4.2.0", "Recipient address rejected: Greylisted", "greylisted"),
    "relay": ("other", 554, "5.7.1", "<ann@x.example>: Relay access denied", "relay_denied"),
    "null_mx": ("other", 556, "5.1.10", "Domain does not accept mail (nullMX)", "bad_domain"),
    "full": ("other", 552, "5.2.2", "Mailbox full", "mailbox_full"),
    "full_for_now": ("other", 452, None, "Quota exceeded", "mailbox_full"),
    "closed": ("other", 550, None, "This account has been disabled or discontinued", "inactive_mailbox"),
    "postfix_unknown": (
        "other",
        550,
        "5.1.1",
        "<ann@x.example>: Recipient address rejected: User unknown in virtual mailbox table",
        "invalid_recipient",
    ),
    "exim_unknown": ("other", 550, None, "Unrouteable address", "invalid_recipient"),
    "no_such_user": ("other", 550, None, "No such user here", "invalid_recipient"),
    "unknown_under_a_policy_code": ("other", 550, "5.7.1", "No such user here", "invalid_recipient"),
    "sender_domain": ("other", 450, "4.1.8", "Sender address rejected: Domain not found", "sender_dns"),
    "sender_domain_for_good": ("other", 553, "5.1.8", "Domain of sender address does not exist", "sender_dns"),
    "spf": ("other", 550, "5.7.23", "SPF validation failed", "auth_failure"),
    "ptr": ("other", 550, None, "no PTR record for your address", "ptr_dns"),
    "starttls": ("other", 530, "5.7.0", "Must issue a STARTTLS command first", "tls_required"),
    "virus": ("other", 554, None, "Message contains a virus", "virus"),
    "spam": ("other", 550, None, "This message looks like spam", "spam_content"),
    "connections": ("other", 421, "4.7.0", "Too many connections from your host", "too_many_connections"),
    "session": ("yahoo", 421, None, "Max message per connection reached", "session_limit"),
    "rate": ("other", 451, None, "Rate limit exceeded, try again later", "rate_limited_ip"),
    "qq_rate_with_a_5xx": ("qq", 550, None, "Ip frequency limited", "rate_limited_ip"),
    "recipients": ("other", 452, "4.5.3", "Error: too many recipients", "too_many_recipients"),
    "size": ("other", 552, "5.3.4", "Message size exceeds fixed limit", "message_too_big"),
    "exim_expired": ("other", None, "5.0.0", "retry timeout exceeded", "expired"),
    "refused_connection": ("other", None, None, "Connection refused", "connection"),
    "bounce_without_any_code": ("other", None, None, "User unknown", "invalid_recipient"),
}


@pytest.mark.parametrize(("provider", "code", "enhanced", "text", "category"), TEXTS.values(), ids=TEXTS.keys())
def test_a_text_tells_its_category(
    provider: str, code: int | None, enhanced: str | None, text: str, category: str
) -> None:
    reading = classify(code=code, enhanced=enhanced, text=text, provider=provider)
    assert reading.category == category, reading


CODES = {
    "enhanced_5": (550, "5.1.1", "sorry", "invalid_recipient", "enhanced 1.1"),
    "enhanced_4": (450, "4.1.1", "sorry", "greylisted", "enhanced 1.1"),
    "the_reply_code_tells_the_class": (450, "5.1.1", "sorry", "greylisted", "enhanced 1.1"),
    "enhanced_in_the_text": (550, None, "5.2.1 sorry", "inactive_mailbox", "enhanced 2.1"),
    "enhanced_in_the_text_after_the_code": (550, None, "550-5.2.1 sorry", "inactive_mailbox", "enhanced 2.1"),
    "enhanced_alone": (None, "5.1.2", "sorry", "bad_domain", "enhanced 1.2"),
    "other_details_of_a_subject": (550, "5.7.99", "sorry", "policy_block", "enhanced 7.*"),
    "leading_zeros": (550, "5.01.001", "sorry", "invalid_recipient", "enhanced 1.1"),
    "unlisted_subject": (550, "5.9.9", "sorry", "other", "code 5"),
    "broken_enhanced": (550, "banana", "sorry", "other", "code 5"),
    "an_address_is_no_enhanced_code": (550, None, "5.1.1.1 sorry", "other", "code 5"),
    "digits_552": (552, None, "sorry", "mailbox_full", "code 552"),
    "digits_556": (556, None, "sorry", "bad_domain", "code 556"),
    "digits_554": (554, None, "sorry", "policy_block", "code 554"),
    "digits_550": (550, None, "sorry", "other", "code 5"),
    "digits_4": (471, None, "sorry", "transient", "code 4"),
    "nothing": (None, None, "", "other", "nothing known"),
    "a_success": (250, "2.0.0", "ok", "other", "nothing known"),
    "no_smtp_code_at_all": (99_999, None, "ok", "other", "nothing known"),
}


@pytest.mark.parametrize(("code", "enhanced", "text", "category", "rule"), CODES.values(), ids=CODES.keys())
def test_without_a_telling_text_the_codes_decide(
    code: int | None, enhanced: str | None, text: str, category: str, rule: str
) -> None:
    reading = classify(code=code, enhanced=enhanced, text=text)
    assert (reading.category, reading.rule) == (category, rule)


def test_rules_of_another_provider_are_not_asked() -> None:
    text = "RP-001 exceeded"
    assert classify(code=421, enhanced=None, text=text, provider="microsoft").category == "rate_limited_ip"
    assert classify(code=421, enhanced=None, text=text, provider="yahoo").category == "transient"


FINALITY = {
    "hard_5": (550, "5.1.1", "user unknown", True, True),
    "soft_5": (552, "5.2.2", "mailbox full", True, False),
    "soft_4": (452, "4.2.2", "mailbox full", False, False),
    "throttle_5_is_tried_again": (550, None, "frequency limited", False, False),
    "greylisted": (450, None, "greylisted", False, False),
    "block_5": (554, None, "blocked using zen.spamhaus.org", True, False),
    "block_4": (421, None, "blocked using zen.spamhaus.org", False, False),
    "for_good_even_with_4": (421, None, "[TSS09] permanently deferred", True, False),
    "config_5": (550, "5.7.26", "sorry", True, False),
    "transient_5": (550, "5.3.2", "sorry", False, False),
    "unknown_user_without_a_code": (None, None, "user unknown", True, True),
}


@pytest.mark.parametrize(("code", "enhanced", "text", "final", "suppress"), FINALITY.values(), ids=FINALITY.keys())
def test_final_and_suppress(code: int | None, enhanced: str | None, text: str, final: bool, suppress: bool) -> None:
    reading = classify(code=code, enhanced=enhanced, text=text)
    assert (reading.final, reading.suppress) == (final, suppress), reading


def test_only_dead_addresses_are_suppressed_and_only_they_count_as_hard_bounces() -> None:
    for name, category in shipped().categories.items():
        assert category.suppress == (category.kind == "hard") == (category.counts == "hard_bounce"), name


@pytest.mark.parametrize("kind", ["block", "config", "bug", "throttle", "transient", "soft"])
def test_a_category_of_this_kind_never_suppresses(kind: str) -> None:
    of_kind = [one for one in shipped().categories.values() if one.kind == kind]
    assert of_kind
    assert not any(one.suppress for one in of_kind)


codes = st.one_of(st.none(), st.integers(200, 599), st.integers(-(10**9), 10**9))
enhanced_codes = st.one_of(
    st.none(), st.text(max_size=10), st.from_regex(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}", fullmatch=True)
)
texts = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from([one[3] for one in TEXTS.values()]), max_size=3).map("\r\n".join),
)
providers = st.sampled_from(["other", "google", "microsoft", "yahoo", "nobody"])


@settings(max_examples=600)
@given(codes, enhanced_codes, texts, providers)
def test_every_reply_has_a_reading(code: int | None, enhanced: str | None, text: str, provider: str) -> None:
    reading = classify(code=code, enhanced=enhanced, text=text, provider=provider)
    assert reading.category in shipped().categories


@settings(max_examples=600)
@given(st.integers(400, 499), enhanced_codes, texts, providers)
def test_a_4xx_reply_never_kills_an_address(code: int, enhanced: str | None, text: str, provider: str) -> None:
    reading = classify(code=code, enhanced=enhanced, text=text, provider=provider)
    assert reading.kind != "hard"
    assert not reading.suppress


@given(codes, enhanced_codes, texts, providers)
def test_capitals_and_line_ends_do_not_matter(code: int | None, enhanced: str | None, text: str, provider: str) -> None:
    def read(one: str) -> Reading:
        return classify(code=code, enhanced=enhanced, text=one, provider=provider)

    if text.isascii():
        assert read(text) == read(text.upper()) == read(text.replace("\r\n", "\n"))


def test_what_stands_beyond_4_kilobytes_is_not_read() -> None:
    far = "x" * 4_090 + " user unknown"
    assert classify(code=550, enhanced=None, text=far).category == "other"
    assert classify(code=550, enhanced=None, text=far[6:]).category == "other"
    assert classify(code=550, enhanced=None, text=far[100:]).category == "invalid_recipient"


HOSTILE = {
    "spaces": " " * 4_096,
    "accounts": "account " * 512,
    "digits": "5.7." * 1_024,
    "brackets": "[" * 4_096,
    "codes": "550-5.1.1 " * 410,
    "lines": "\n" * 4_096,
    "spam": "spa" * 1_365,
    "megabytes": "account " * 1_000_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("code", [None, 450, 550])
def test_hostile_texts_are_read_like_others(text: str, code: int | None) -> None:
    """With a pattern that backtracks this would not come back; that there is none is the law below."""
    assert classify(code=code, enhanced=None, text=text).category in shipped().categories


def test_no_shipped_pattern_takes_more_than_linear_time() -> None:
    table = tomllib.loads(files("policy").joinpath("replies.toml").read_text(encoding="utf-8"))
    patterns = [rule["pattern"] for rule in table["rule"] if "pattern" in rule]
    assert patterns
    assert [flaw_of_pattern(pattern) for pattern in patterns] == [None] * len(patterns)


def test_a_category_that_nobody_knows_is_taken_for_other() -> None:
    assert category_of("of tomorrow") == category_of(None) == category_of("other")


PATTERNS = {
    "anchored_one_star": ("^550 .*gone", None),
    "bounded": ("a.{0,40}b", None),
    "class_with_plus_inside": ("[*+]x", None),
    "escaped_star": (r"\*x\+", None),
    "unanchored_star": ("a.*b", "one"),
    "unanchored_plus": ("a+b", "one"),
    "open_interval": ("a{2,}b", "one"),
    "two_stars": ("^a.*b.*c", "one"),
    "anchored_on_one_side_only": ("^a.*b|^c", "one"),
    "capitals": ("^550 Gone", "capitals"),
    "broken": ("(", "no regular expression"),
}


@pytest.mark.parametrize(("pattern", "flaw"), PATTERNS.values(), ids=PATTERNS.keys())
def test_patterns_that_could_take_long_are_refused(pattern: str, flaw: str | None) -> None:
    said = flaw_of_pattern(pattern)
    assert said is None if flaw is None else said is not None and flaw in said


MINIMAL = """
[category.other]
kind = "soft"
[category.gone]
kind = "hard"
counts = "hard_bounce"
suppress = true
[enhanced]
"1.1" = ["other", "gone"]
[basic]
5 = "other"
[[rule]]
id = "one"
class = 5
any = ["gone"]
category = "gone"
"""


def test_further_rules_are_only_data() -> None:
    book = RuleBook(MINIMAL + '[[rule]]\nid = "two"\nall = ["A", "B"]\ncodes = [571]\ncategory = "other"\n')
    assert book.read(code=571, enhanced=None, text="b and a", provider="other").rule == "two"
    assert book.read(code=570, enhanced=None, text="b and a", provider="other").rule == "code 5"


MISTAKES = {
    "unknown_category": ('[[rule]]\nid = "x"\nany = ["x"]\ncategory = "nope"\n', "rule x: category nope"),
    "id_twice": ('[[rule]]\nid = "one"\nany = ["x"]\ncategory = "other"\n', "rule one: its id is used twice"),
    "hard_without_class": ('[[rule]]\nid = "x"\nany = ["x"]\ncategory = "gone"\n', "rule x: a category of kind hard"),
    "matches_everything": ('[[rule]]\nid = "x"\ncategory = "other"\n', "rule x: it matches everything"),
    "slow_pattern": ('[[rule]]\nid = "x"\npattern = "a.*b"\ncategory = "other"\n', "rule x: pattern may have"),
    "misspelt_field": ('[[rule]]\nid = "x"\nanny = ["x"]\ncategory = "other"\n', "anny"),
    "block_that_suppresses": ('[category.b]\nkind = "block"\nsuppress = true\n', "category b: only kind hard"),
}


@pytest.mark.parametrize(("addition", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_file_with_a_mistake_is_refused_with_its_place(addition: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        RuleBook(MINIMAL + addition)


def test_an_enhanced_4xx_code_cannot_be_made_hard() -> None:
    with pytest.raises(ValueError, match=r"enhanced 1\.1"):
        RuleBook(MINIMAL.replace('["other", "gone"]', '["gone", "gone"]'))
