"""The fast path never differs from the library; limits are counted in octets; nothing is said in clear."""

import random
import string
import unicodedata

import pytest
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policy.addresses import BadAddress, CheckedAddress, canonical, check, hostname


def the_library_says(address: str) -> CheckedAddress | None:
    """The reference: email-validator, strict, plus the local part counted in octets."""
    try:
        found = validate_email(address, strict=True, check_deliverability=False)
    except EmailNotValidError:
        return None
    if len(found.local_part.encode()) > 64:
        return None
    return CheckedAddress(
        address=f"{found.local_part}@{found.ascii_domain}",
        local=found.local_part,
        domain=found.ascii_domain,
        smtputf8=not found.local_part.isascii(),
    )


def same_verdict(address: str) -> bool:
    said, reference = check(address), the_library_says(address)
    return isinstance(said, BadAddress) if reference is None else said == reference


LABELS = [
    *(
        "a",
        "example",
        "com",
        "co",
        "de",
        "gmail",
        "bücher",
        "BÜCHER",
        "xn--bcher-kva",
        "XN--BCHER-KVA",
        "xn--",
        "xn--zzzz",
    ),
    *(
        "ab--c",
        "AB--c",
        "a--b",
        "a-b",
        "-a",
        "a-",
        "1",
        "123",
        "1a",
        "a1",
        "com1",
        "日本",
        "xn--wgv71a",
        "ß",
        "ﬀ",
        "１",
    ),
    *(
        "",
        "_dmarc",
        "a_b",
        "א",
        "xn--4dbc",
        "ا1",
        "\u0301a",
        "a\u200b",
        "a\u00ad",
        "l" * 63,
        "l" * 64,
        "é" * 40,
        "K",
        "İ",
    ),
    *SPECIAL_USE_DOMAIN_NAMES,
    *(name.upper() for name in SPECIAL_USE_DOMAIN_NAMES),
    *("example", "alt", "home", "internal", "tests", "latest", "localhost1", "mylocal"),
]
LOCALS = [
    *("ann", "Ann.Lee", "a+b", "o'neil", "user%x", "user!x", "a..b", ".a", "a.", "", "a b", '"a b"', '"a@b"', '"a"'),
    *("postmaster", "PostMaster", "INFO", "abuse", "üser", "u\u0308ser", "用户", "\u212aelvin", "a\u200bb", "a\u0301"),
    *(
        "x" * 64,
        "x" * 65,
        "ü" * 32,
        "ü" * 33,
        "\U0001f600",
        "a\r\nb",
        "a\nb",
        "a\0b",
        "a\tb",
        "a,b",
        "a:b",
        "a\\b",
        "(c)a",
    ),
    *("\u0301a", "a\u2028b", "a\x85b", "a\x7f", "ａ", "@", "=?utf-8?q?a?=", "a/b", "{a}", "`a`", "a~"),
]
DOTS = [".", ".", ".", ".", "\u3002", "\uff0e", "..", "-.", ".-"]
ODDITIES = [
    "",
    "",
    "",
    "",
    "",
    " ",
    "\r\n",
    "\n",
    "\0",
    ".",
    "<",
    ">",
    "\u200b",
    "\ufeff",
    ",",
    "@",
    "\u2029",
    "\ud800",
]
ODD_CHARACTERS = (
    "aZ09.-_+@<>\"'\\ \t\r\n\0\x7f\x85()[]:;,%!#éßİK\u0301\u200b\u200f\u2028\u3002\uff20\ufe6bא\ud800\U0001f600"
)


GOOD_LABELS = ["example", "gmail", "a", "b2b", "my-shop", "bücher", "xn--bcher-kva", "Example"]
GOOD_TOPS = ["com", "de", "ORG", "info", "xn--wgv71a", *SPECIAL_USE_DOMAIN_NAMES]


def generated(chance: random.Random) -> str:
    """An address that is good or nearly so: each of its parts may be an odd one."""
    if chance.random() < 0.1:
        return "".join(chance.choices(ODD_CHARACTERS, k=chance.randrange(1, 14)))
    odd = [chance.random() < 0.15 for _ in range(5)]
    labels = [chance.choice(LABELS if odd[0] else GOOD_LABELS) for _ in range(chance.randrange(1, 4))]
    domain = (chance.choice(DOTS) if odd[1] else ".").join([*labels, chance.choice(LABELS if odd[2] else GOOD_TOPS)])
    local = chance.choice(LOCALS) if odd[3] or odd[0] else chance.choice(["ann", "Ann.Lee+x", "info", "üser", "o'neil"])
    if not odd[4]:
        return f"{local}@{domain}"
    whole = chance.choice(ODDITIES) + f"{local}@{domain}" + chance.choice(ODDITIES)
    at = chance.randrange(len(whole))
    return whole[:at] + chance.choice(ODD_CHARACTERS) + whole[at:]


@pytest.mark.parametrize("seed", range(6))
def test_five_thousand_generated_addresses_get_the_verdict_and_form_of_the_library(seed: int) -> None:
    chance = random.Random(seed)
    addresses = [generated(chance) for _ in range(5_000)]
    assert [one for one in addresses if not same_verdict(one)] == []


def test_the_generator_meets_both_verdicts_often() -> None:
    chance = random.Random(99)
    good = sum(isinstance(check(generated(chance)), CheckedAddress) for _ in range(3_000))
    assert 300 < good < 2_700


plain_labels = st.text(alphabet=string.ascii_letters + string.digits + "-", min_size=1, max_size=12)
plain_addresses = st.builds(
    lambda local, labels: f"{local}@{'.'.join(labels)}",
    st.text(alphabet=string.ascii_letters + string.digits + "!#$%&'*+-/=?^_`{|}~.", min_size=1, max_size=66),
    st.lists(plain_labels, min_size=1, max_size=5),
)


@settings(max_examples=2_000)
@given(plain_addresses)
@example("a@b.local")
@example("a@b.LOCALHOST")
@example("a@ab--c.com")
@example("a@xn--bcher-kva.de")
@example("a@1.2.3.4")
@example("a@b.c0m1")
def test_plain_addresses_get_the_verdict_and_form_of_the_library(address: str) -> None:
    assert same_verdict(address)


@settings(max_examples=1_500)
@given(st.text(max_size=24), st.text(max_size=24))
def test_any_text_gets_the_verdict_and_form_of_the_library(local: str, domain: str) -> None:
    assert same_verdict(f"{local}@{domain}.com")


@pytest.mark.parametrize("length", range(240, 260))
def test_the_limit_of_254_octets_is_the_librarys(length: int) -> None:
    domain = ".".join(["d" * 50] * 3) + "." + "e" * (length - 215) + ".com"
    address = "a" * 57 + "@" + domain
    assert len(address) == length
    assert same_verdict(address)
    assert isinstance(check(address), CheckedAddress) is (length <= 254)


LIMITS = {
    "local_part_of_64_octets": ("a" * 64 + "@example.com", True),
    "local_part_of_65_octets": ("a" * 65 + "@example.com", False),
    "local_part_of_32_two_octet_letters": ("ü" * 32 + "@example.com", True),
    "local_part_of_33_two_octet_letters": ("ü" * 33 + "@example.com", False),
    "label_of_63": ("a@" + "d" * 63 + ".com", True),
    "label_of_64": ("a@" + "d" * 64 + ".com", False),
    "megabytes": ("a" * 2_000_000 + "@example.com", False),
    "megabytes_of_at_signs": ("@" * 2_000_000, False),
}


@pytest.mark.parametrize(("address", "good"), LIMITS.values(), ids=LIMITS.keys())
def test_octet_limits_of_rfc_5321_hold(address: str, good: bool) -> None:
    assert isinstance(check(address), CheckedAddress) is good


def test_the_library_alone_would_take_a_local_part_of_65_octets() -> None:
    assert validate_email("a" * 65 + "@example.com", check_deliverability=False).local_part == "a" * 65


@pytest.mark.parametrize("control", ["\r", "\n", "\r\n", "\0", "\x1b", "\x7f", "\x85", "\u2028", "\u2029"], ids=ascii)
@pytest.mark.parametrize(
    "where", ["{0}ann@example.com", "a{0}n@example.com", "ann@exa{0}mple.com", "ann@example.com{0}"]
)
def test_control_characters_never_pass_wherever_they_stand(control: str, where: str) -> None:
    said = check(where.format(control))
    assert isinstance(said, BadAddress)
    assert said.reason == "control_character"


FLAWS = {
    "": "empty",
    "  ": "empty",
    "ann": "no_at_sign",
    "ann＠example.com": "no_at_sign",
    "ann@bob@example.com": "two_at_signs",
    "Ann <ann@example.com>": "display_name",
    "<ann@example.com>": "display_name",
    '"ann lee"@example.com': "quoted_local_part",
    "ann lee@example.com": "space",
    "ann@example.com ": "space",
    "@example.com": "no_local_part",
    "ann@": "no_domain",
    "ann@[192.0.2.1]": "address_literal",
    "a..b@example.com": "local_part",
    "ann,bob@example.com": "local_part",
    "ann@example": "no_top_level_domain",
    "ann@example.test": "special_use_domain",
    "ann@host.LOCAL": "special_use_domain",
    "ann@-example.com": "domain",
    "ann@exa_mple.com": "domain",
    "ann@ab--cd.com": "domain",
    "ann@xn--zzzz.com": "domain",
    "ann@1.2.3.4": "domain",
    "a" * 65 + "@example.com": "local_part_too_long",
    "a@" + "d." * 130 + "com": "too_long",
}


@pytest.mark.parametrize(
    ("address", "reason"), FLAWS.items(), ids=[f"{n}-{why}" for n, why in enumerate(FLAWS.values())]
)
def test_a_bad_address_is_named_by_its_flaw(address: str, reason: str) -> None:
    said = check(address)
    assert isinstance(said, BadAddress)
    assert said.reason == reason


@settings(max_examples=500)
@given(st.text(alphabet='qzjxkw._-é@<>[]"', min_size=4, max_size=30))
def test_an_explanation_never_quotes_the_address(address: str) -> None:
    said = check(address)
    if isinstance(said, BadAddress):
        pieces = [piece for piece in address.replace("@", " ").split() if len(piece) > 2]
        assert not any(piece in said.explain for piece in pieces)


CANONICAL = {
    "case_is_folded": ("Ann@Example.COM", "ann@example.com"),
    "gmail_dots": ("a.n.n@gmail.com", "ann@gmail.com"),
    "gmail_tag": ("ann+shop@gmail.com", "ann@gmail.com"),
    "googlemail_is_gmail": ("A.nn+x@GoogleMail.com", "ann@gmail.com"),
    "outlook_tag": ("ann.lee+x@outlook.com", "ann.lee@outlook.com"),
    "icloud_tag": ("ann+x@icloud.com", "ann@icloud.com"),
    "proton_tag": ("ann+x@proton.me", "ann@proton.me"),
    "yahoo_keyword": ("ann-shop@yahoo.com", "ann@yahoo.com"),
    "yahoo_plus_is_a_letter": ("ann+x@yahoo.com", "ann+x@yahoo.com"),
    "elsewhere_nothing_is_dropped": ("a.nn+x@example.com", "a.nn+x@example.com"),
    "a_tag_alone_stays": ("+x@gmail.com", "+x@gmail.com"),
    "a_keyword_alone_stays": ("-x@yahoo.com", "-x@yahoo.com"),
    "idn_as_a_labels": ("ann@BÜCHER.de", "ann@xn--bcher-kva.de"),
    "unicode_local_part_is_folded": ("ÜSER@example.com", "üser@example.com"),
    "decomposed_is_composed": ("u\u0308ser@example.com", "üser@example.com"),
    "kelvin_is_k": ("\u212aelvin@example.com", "kelvin@example.com"),
    "no_address": ("Ann", "ann"),
    "empty": ("", ""),
    "only_at": ("@Example.com", "example.com"),
}


@pytest.mark.parametrize(("address", "expected"), CANONICAL.values(), ids=CANONICAL.keys())
def test_canonical_form(address: str, expected: str) -> None:
    assert canonical(address) == expected


mailboxes = st.one_of(
    plain_addresses,
    st.builds(
        "{}@{}".format,
        st.text(alphabet=st.characters(categories=["L", "N"]), min_size=1, max_size=10),
        st.sampled_from(["gmail.com", "example.com", "yahoo.com", "bücher.de", "OUTLOOK.com"]),
    ),
    st.text(max_size=30),
)


@settings(max_examples=800)
@given(mailboxes)
def test_the_canonical_form_of_a_canonical_form_is_itself(address: str) -> None:
    once = canonical(address)
    assert canonical(once) == once


@settings(max_examples=400)
@given(plain_addresses)
def test_case_never_changes_the_canonical_form(address: str) -> None:
    assert canonical(address) == canonical(address.upper()) == canonical(address.swapcase())


@settings(max_examples=400)
@given(mailboxes)
def test_composition_never_changes_the_canonical_form_of_a_good_address(address: str) -> None:
    if isinstance(check(address), CheckedAddress):
        composed, apart = unicodedata.normalize("NFC", address), unicodedata.normalize("NFD", address)
        assert canonical(composed) == canonical(apart)


HOSTNAMES = {
    "shop.example": "shop.example",
    "Bounces.Shop.EXAMPLE": "bounces.shop.example",
    "localhost": "localhost",
    "a.test": "a.test",
    "bücher.de": "xn--bcher-kva.de",
    "xn--bcher-kva.de": "xn--bcher-kva.de",
    "": None,
    "a b.de": None,
    "a.de\r\n": None,
    "a.de>": None,
    "a..de": None,
    "-a.de": None,
    "a" * 64 + ".de": None,
    "a.de." * 80: None,
}


@pytest.mark.parametrize(("text", "expected"), HOSTNAMES.items(), ids=range(len(HOSTNAMES)))
def test_a_hostname_is_put_into_a_labels_or_refused(text: str, expected: str | None) -> None:
    assert hostname(text) == expected
