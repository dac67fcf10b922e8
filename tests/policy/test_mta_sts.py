"""How MTA-STS records and policies are read (RFC 8461)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.mta_sts import MAX_AGE_MOST_S, MAX_POLICY_BYTES, NoPolicy, StsPolicy, policy_id, read_policy

GOOD = b"version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"


@pytest.mark.parametrize(
    ("records", "found"),
    [
        (["v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        (["v=STSv1;id=1"], "1"),
        (["v=STSv1; id=1; later=thing"], "1"),
        (["v=STSv1 ; id=1 ; "], "1"),
        (["v=STSv1; id=1; id=2"], "1"),
        (["v=spf1 -all", "v=STSv1; id=1"], "1"),
        (["v=STSv1; id=1", "v=STSv1; id=1"], None),
        (["v=STSv10; id=1"], None),
        (["v=STSv1"], None),
        (["v=STSv1; id="], None),
        (["v=STSv1; id=a-b"], None),
        (["v=STSv1; id=" + "1" * 33], None),
        (["v=STSv1; id=1;; x=y"], None),
        ([" v=STSv1; id=1"], None),
        (["V=STSv1; id=1"], None),
        (["id=1; v=STSv1"], None),
        ([], None),
    ],
)
def test_the_id_of_the_one_record(records: list[str], found: str | None) -> None:
    assert policy_id(records) == found


@pytest.mark.parametrize(
    ("body", "policy"),
    [
        (GOOD, StsPolicy("enforce", ("mail.example.com", "*.example.net"), 604_800)),
        (GOOD.replace(b"\r\n", b"\n"), StsPolicy("enforce", ("mail.example.com", "*.example.net"), 604_800)),
        (b"max_age:0\nmode:testing\nmx:A.Example\nversion:STSv1", StsPolicy("testing", ("a.example",), 0)),
        (b"version: STSv1\nmode: none\nmax_age: 86400\n", StsPolicy("none", (), 86_400)),
        (b"version: STSv1 \nmode: none\t\nmax_age: 1\n", StsPolicy("none", (), 1)),
        (b"version: STSv1\nmode: none\nmode: enforce\nmax_age: 1\nmax_age: x\n", StsPolicy("none", (), 1)),
        (b"version: STSv1\nnew: with: colons \xc3\xa9\nmode: none\nmax_age: 1\n", StsPolicy("none", (), 1)),
        (b"version: STSv1\nmode: none\nmax_age: 9999999999\n", StsPolicy("none", (), MAX_AGE_MOST_S)),
    ],
    ids=["rfc", "lf", "any-order", "none", "trailing-space", "first-counts", "unknown-field", "too-long-an-age"],
)  # fmt: skip
def test_a_policy_as_the_rfc_writes_it(body: bytes, policy: StsPolicy) -> None:
    assert read_policy(body) == policy


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "version"),
        (GOOD.replace(b"STSv1", b"STSv2"), "version"),
        (GOOD.replace(b"version", b"Version"), "version"),
        (GOOD.replace(b"enforce", b"Enforce"), "mode"),
        (GOOD.replace(b"mode: enforce\r\n", b""), "mode"),
        (GOOD.replace(b"604800", b"-1"), "max_age"),
        (GOOD.replace(b"604800", b"12345678901"), "max_age"),
        (GOOD.replace(b"604800", "٣".encode()), "max_age"),
        (GOOD.replace(b"max_age: 604800\r\n", b""), "max_age"),
        (b"version: STSv1\nmode: enforce\nmax_age: 1\n", "no mx field"),
        (GOOD.replace(b"*.example", b"*example"), "mx field"),
        (GOOD.replace(b"*.example", b"a.*.example"), "mx field"),
        (GOOD.replace(b"mail.example.com", b"*"), "mx field"),
        (GOOD.replace(b"mail.example.com", b"mail.example.com."), "mx field"),
        (GOOD.replace(b"mail.example.com", b".example.com"), "mx field"),
        (GOOD.replace(b"mode:", b"\nmode:"), "line 2"),
        (GOOD.replace(b"mode:", b" mode:"), "line 2"),
        (GOOD.replace(b"mode:", b"mode :"), "line 2"),
        (b"<html>not found</html>", "line 1"),
        (GOOD + b"\xff: x\n", "UTF-8"),
        (GOOD + b"\x00", "line 6"),
        (GOOD + b"x" * MAX_POLICY_BYTES, "bytes"),
        (b"mx: a.example\n" * 1001 + GOOD, "mx fields"),
    ],
)
def test_what_is_not_a_policy_says_why(body: bytes, says: str) -> None:
    read = read_policy(body)
    assert isinstance(read, NoPolicy)
    assert says in read.explain


@pytest.mark.parametrize(
    ("host", "covered"),
    [
        ("mail.example.com", True),
        ("MAIL.Example.com.", True),
        ("a.example.net", True),
        ("a.b.example.net", False),
        ("example.net", False),
        ("mail.example.com.evil.example", False),
        ("evilmail.example.com", False),
        ("", False),
        ("net", False),
    ],
)
def test_which_hosts_a_policy_covers(host: str, covered: bool) -> None:
    policy = read_policy(GOOD)
    assert isinstance(policy, StsPolicy)
    assert policy.covers(host) is covered


_LINES = st.lists(st.sampled_from(GOOD.split(b"\r\n")) | st.binary(max_size=40) | st.just(b"mode: testing"), max_size=8)


@given(body=st.binary(max_size=300) | _LINES.map(b"\n".join))
def test_reading_a_policy_never_raises_and_what_is_read_can_be_used(body: bytes) -> None:
    read = read_policy(body)
    if isinstance(read, StsPolicy):
        assert read.mx or read.mode == "none"
        assert 0 <= read.max_age_s <= MAX_AGE_MOST_S
        assert not read.covers("nobody.invalid") or "nobody.invalid" in read.mx or "*.invalid" in read.mx


@given(records=st.lists(st.text(max_size=60) | st.text("v=STSid1; ", max_size=30).map("v=STSv1;".__add__), max_size=3))
def test_reading_records_never_raises(records: list[str]) -> None:
    found = policy_id(records)
    assert found is None or found.isalnum()
