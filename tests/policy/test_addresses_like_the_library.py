"""Every kind of address that a list can hold gets the verdict and the form of email-validator.

Each kind has a generator of its own, since text at random hardly ever is a bidirectional label or a local part of 64
octets.  Where we differ on purpose it is said in :data:`DIFFERENCES`; nothing else may differ.
"""

import string
import unicodedata

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from policy.addresses import BadAddress, CheckedAddress, check

ASCII_ALNUM = string.ascii_letters + string.digits
ATEXT = ASCII_ALNUM + "!#$%&'*+-/=?^_`{|}~"

# Letters of many scripts; the second half of a label may come from another one, or be a mark, a digit or a joiner.
SCRIPTS = [
    "abcxyzABCXYZ",
    "äöüßéèñçøåıİĲﬀＡａſ",
    "абвгдежзЯЖЁі",
    "αβγδςσΑΣ",
    "日本語例え中文漢字ーカタカナ々",
    "한국어ㄱ",
    "אבגדהותש",
    "ابتثمنيهـ۳٣",
    "हिन्दीक्षत्र",
    "ไทยภาษา",
    "აბგՀայ",
    "0123456789٣３²①",
    "\u0301\u0308\u093c\u05b0\u200c\u200d·•'\u0375\u30fb",
]
ZERO_WIDTH = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad\u202e\u2066\u034f\u180e"
CONTROLS = "".join(map(chr, [*range(0x20), 0x7F, *range(0x80, 0xA0)])) + "\u2028\u2029\ud800\udfff\ufffe\U000e0001"
DOTS = [".", "\u3002", "\uff0e", "\uff61", "\u2024", ".."]


def the_library_says(address: str) -> CheckedAddress | None:
    """The reference, with the settings of benchmarks/admission.py; the local part is counted in octets."""
    try:
        found = validate_email(address, strict=True, check_deliverability=False)
    except EmailNotValidError:
        return None
    if len(found.local_part.encode()) > 64:
        return None
    local, domain = found.local_part, found.ascii_domain
    return CheckedAddress(f"{local}@{domain}", local, domain, not local.isascii())


def must_agree(address: str) -> None:
    said, reference = check(address), the_library_says(address)
    event("good" if reference is not None else "bad")
    if reference is None:
        assert isinstance(said, BadAddress)
    else:
        assert said == reference


of_one_script = st.sampled_from(SCRIPTS).flatmap(lambda letters: st.text(letters, min_size=1, max_size=12))
u_labels = st.one_of(
    of_one_script,
    st.lists(of_one_script, min_size=2, max_size=3).map("".join),
    st.builds("{}{}".format, of_one_script, st.sampled_from(SCRIPTS[-2:]).flatmap(lambda s: st.text(s, max_size=3))),
    st.builds("{}-{}".format, of_one_script, of_one_script),
    st.text(st.characters(categories=["L", "M", "N"]), min_size=1, max_size=10),
)


def a_label(text: str) -> str:
    """What somebody's mailer may have made of a label, whether that is allowed or not."""
    try:
        return "xn--" + text.encode("punycode").decode("ascii")
    except UnicodeError:
        return "xn--" + text


a_labels = st.one_of(
    u_labels.map(a_label),
    u_labels.map(lambda label: a_label(unicodedata.normalize("NFC", label.lower()))),
    st.builds("{}{}".format, st.sampled_from(["xn--", "XN--", "xN--", "xn-", "ab--", "xn---"]), st.text(ASCII_ALNUM)),
)
ascii_labels = st.text(ASCII_ALNUM + "-_", min_size=1, max_size=12)
long_labels = st.one_of(
    st.integers(60, 66).map(lambda length: "d" * length),
    st.integers(40, 66).map(lambda length: "é" * length),
    st.integers(10, 30).map(lambda length: "日" * length),
    st.integers(55, 66).map(lambda length: "xn--" + "a" * (length - 4)),
)
labels = st.one_of(ascii_labels, u_labels, a_labels, long_labels, st.just(""))
domains = st.builds(
    lambda some, dot, top: dot.join([*some, top]),
    st.lists(labels, min_size=1, max_size=3),
    st.sampled_from(DOTS),
    st.one_of(st.sampled_from(["com", "de", "рф", "中国", "xn--p1ai", "test", "local", "c0m", "1"]), labels),
)
plain_locals = st.text(ATEXT, min_size=1, max_size=12)
dotted_locals = st.lists(st.one_of(plain_locals, st.just("")), min_size=1, max_size=4).map(".".join)
utf8_locals = st.one_of(
    u_labels,
    st.lists(st.one_of(u_labels, plain_locals), min_size=1, max_size=3).map(".".join),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12),
    u_labels.map(lambda text: unicodedata.normalize("NFD", text)),
    u_labels.map(lambda text: unicodedata.normalize("NFKD", text)),
)
quoted_locals = st.builds(
    '{}"{}"{}'.format,
    st.sampled_from(["", "", "a.", "a", " "]),
    st.text(ATEXT + ' .@,:;<>()[]\\"\t\r\nüא', max_size=10),
    st.sampled_from(["", "", ".a", "a", " "]),
)
comments = st.builds("({})".format, st.text(ATEXT + " .@()\\ü", max_size=8))
some_locals = st.one_of(plain_locals, dotted_locals, utf8_locals, quoted_locals)


@settings(max_examples=700, deadline=None)
@given(plain_locals, domains)
def test_of_international_domains(local: str, domain: str) -> None:
    must_agree(f"{local}@{domain}")


@settings(max_examples=400, deadline=None)
@given(st.lists(u_labels, min_size=1, max_size=3))
def test_of_domains_that_are_good_in_either_form(some: list[str]) -> None:
    written = the_library_says(f"ann@{'.'.join(some)}.com")
    must_agree(f"ann@{'.'.join(some)}.com")
    assume(written is not None)
    assert written is not None
    must_agree(f"ann@{written.domain}")
    must_agree(f"ann@{written.domain.upper()}")
    assert check(f"ann@{written.domain}") == written


@settings(max_examples=250, deadline=None)
@given(utf8_locals, st.one_of(st.just("example.com"), domains))
def test_of_local_parts_that_are_not_ascii(local: str, domain: str) -> None:
    must_agree(f"{local}@{domain}")


@settings(max_examples=300, deadline=None)
@given(utf8_locals, domains)
def test_of_all_forms_of_composition(local: str, domain: str) -> None:
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        must_agree(unicodedata.normalize(form, f"{local}@{domain}"))


@settings(max_examples=400, deadline=None)
@given(quoted_locals, st.one_of(st.just("example.com"), domains))
def test_of_quoted_local_parts(local: str, domain: str) -> None:
    must_agree(f"{local}@{domain}")


@settings(max_examples=300, deadline=None)
@given(dotted_locals, st.lists(st.one_of(ascii_labels, st.just("")), min_size=1, max_size=4).map(".".join))
def test_of_dots_wherever_they_stand(local: str, domain: str) -> None:
    must_agree(f"{local}@{domain}")


@settings(max_examples=300, deadline=None)
@given(plain_locals, comments, st.integers(0, 4))
def test_of_comments(local: str, comment: str, place: int) -> None:
    pieces = [local, "@", "example", ".com"]
    pieces.insert(place, comment)
    must_agree("".join(pieces))


literals = st.one_of(
    st.ip_addresses(v=4).map("[{}]".format),
    st.ip_addresses(v=6).map("[IPv6:{}]".format),
    st.ip_addresses().map(str),
    st.text(string.hexdigits + ".:[]IPv6", max_size=20).map("[{}]".format),
    st.sampled_from(["[]", "[", "]", "[192.0.2.1", "192.0.2.1]", "[tag:x]", "[IPv6:::1]"]),
)


@settings(max_examples=250, deadline=None)
@given(some_locals, literals)
def test_of_domain_literals(local: str, literal: str) -> None:
    must_agree(f"{local}@{literal}")


@settings(max_examples=250, deadline=None)
@given(some_locals, domains, st.sampled_from(CONTROLS + ZERO_WIDTH + " \t\xa0\u3000"), st.floats(0, 1))
def test_of_control_and_zero_width_characters_wherever_they_stand(
    local: str, domain: str, odd: str, place: float
) -> None:
    whole = f"{local}@{domain}"
    at = round(place * len(whole))
    must_agree(whole[:at] + odd + whole[at:])


fillers = st.sampled_from(["a", "ü", "日", "\U0001f600", "u\u0308", "a."])


@settings(max_examples=250, deadline=None)
@given(fillers, st.integers(60, 68), st.sampled_from(["example.com", "bücher.example.com"]))
def test_of_local_parts_at_64_octets(filler: str, octets: int, domain: str) -> None:
    """Filled up to some octets, whatever a character of the filler takes."""
    local = (filler * octets)[: max(1, octets * len(filler) // len(filler.encode()))].rstrip(".")
    must_agree(f"{local}@{domain}")
    must_agree(f"{local + 'x' * max(0, 64 - len(local.encode()))}@{domain}")


@settings(max_examples=400, deadline=None)
@given(
    st.integers(1, 64),
    st.sampled_from(["d", "é", "日", "ß", "xn--d"]),
    st.integers(1, 63),
    st.integers(-4, 6),
    st.sampled_from(["a", "ü"]),
)
def test_of_whole_addresses_at_254_octets(local: int, filler: str, label: int, off: int, letter: str) -> None:
    """The limit may be met by the address as written or by its A-labels; both are tried from both sides."""
    one = (filler * label)[:label]
    for count_octets in (len, lambda text: len(text.encode()), _ascii_length):
        domain = "com"
        while count_octets(domain) + local + 1 < 254 + off - 64:
            domain = f"{one}.{domain}"
        rest = 254 + off - local - 2 - count_octets(domain)
        must_agree(f"{letter * local}@{'e' * max(rest, 1)}.{domain}")


def _ascii_length(domain: str) -> int:
    return sum(len(label if label.isascii() else a_label(label)) + 1 for label in domain.split(".")) - 1


@settings(max_examples=250, deadline=None)
@given(st.integers(57, 66), st.sampled_from(["d", "é", "日", "ж", "א", "xn--"]), st.sampled_from(["com", "рф"]))
def test_of_labels_at_63_octets(length: int, filler: str, top: str) -> None:
    for label in ((filler + "d" * length)[:length], (filler * length)[:length], (filler * length)[: length // 2]):
        must_agree(f"ann@{label}.{top}")


DIFFERENCES = {
    "a local part of 33 letters of two octets": ("ü" * 33 + "@example.com", "local_part_too_long"),
    "a local part of 17 signs of four octets": ("\U00010400" * 17 + "@example.com", "local_part_too_long"),
}


@pytest.mark.parametrize(("address", "reason"), DIFFERENCES.values(), ids=DIFFERENCES.keys())
def test_what_the_library_takes_and_we_do_not_is_named(address: str, reason: str) -> None:
    """RFC 5321 4.5.3.1.1 counts octets; the library counts characters."""
    assert validate_email(address, strict=True, check_deliverability=False).domain == "example.com"
    said = check(address)
    assert isinstance(said, BadAddress)
    assert said.reason == reason
