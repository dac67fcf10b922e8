"""Hashes, return paths and Message-IDs: only we can make them, and they survive what mail systems do to them."""

import base64
import hashlib
import hmac
import re
import string

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from policy.naming import campaign_name
from policy.tokens import (
    UNSUBSCRIBE_TOKEN,
    Forged,
    Keys,
    Leave,
    Named,
    Ticket,
    address_hash,
    campaign_ref,
    message_id_header,
    message_ref,
    message_token,
    read_message_id,
    read_return_path,
    read_unsubscribe_token,
    return_path,
    return_paths_in,
    unsubscribe_token,
)

KEYS = Keys(address=b"a" * 32, return_path=b"r" * 32)
NOW = 1_764_000_000_000
DAY_MS = 86_400_000
DOMAIN = "bounces.shop.example"
ANN = address_hash(KEYS, "ann@example.com")

message_ids = st.one_of(
    st.text(min_size=1, max_size=128),
    st.text(alphabet=string.ascii_letters + string.digits + "_-", min_size=1, max_size=128),
    st.uuids().map(str),
    st.uuids().map(lambda one: one.hex),
    st.text(alphabet="abcdefghijklmnopqrstuvwxyz234567", min_size=21, max_size=32),
    st.text(alphabet="0123456789abcdef", min_size=21, max_size=42),
)
campaigns = st.text(min_size=1, max_size=128)
times = st.integers(min_value=0, max_value=(2**32 - 1) * 1000)


def path_of(message_id: str, *, sent_at: int = NOW, campaign: str = "spring-sale", keys: Keys = KEYS) -> str:
    return return_path(keys, campaign=campaign, message_id=message_id, address_hash=ANN, sent_at=sent_at, domain=DOMAIN)


def test_the_address_hash_is_the_hmac_of_the_canonical_address() -> None:
    expected = hmac.new(KEYS.address, b"ann@gmail.com", hashlib.sha256).hexdigest()
    assert address_hash(KEYS, "A.nn+News@GoogleMail.com") == expected


@given(st.binary(min_size=1, max_size=200), st.text(alphabet="abc.", min_size=1, max_size=20))
def test_the_address_hash_is_hmac_for_keys_of_any_length(key: bytes, address: str) -> None:
    keys = Keys(address=key, return_path=b"r")
    plain = address_hash(keys, address + "@example.com")
    assert plain == hmac.new(key, (address + "@example.com").encode(), "sha256").hexdigest()


def test_another_key_gives_another_hash() -> None:
    other = Keys(address=b"b" * 32, return_path=b"r" * 32)
    assert address_hash(KEYS, "ann@example.com") != address_hash(other, "ann@example.com")


def test_an_address_that_is_none_still_has_a_hash() -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", address_hash(KEYS, "\ud800 no address"))


def test_keys_do_not_show_themselves() -> None:
    assert repr(KEYS) == "Keys(key_id='1')"


@settings(max_examples=600)
@given(campaigns, message_ids, times)
def test_a_return_path_reads_back_as_it_was_written(campaign: str, message_id: str, sent_at: int) -> None:
    ticket = read_return_path(KEYS, path_of(message_id, sent_at=sent_at, campaign=campaign), now=sent_at)
    assert isinstance(ticket, Ticket)
    assert ticket.campaign_ref == campaign_ref(campaign)
    assert ticket.message_ref == message_ref(message_id)
    assert ticket.sent_at == sent_at // 1000 * 1000
    assert ticket.message_id in {message_id, None}


@settings(max_examples=600)
@given(message_ids, times)
def test_the_local_part_has_at_most_64_octets_of_a_safe_alphabet(message_id: str, sent_at: int) -> None:
    local, _, domain = path_of(message_id, sent_at=sent_at).partition("@")
    assert len(local.encode()) <= 64
    assert re.fullmatch(r"b\+[a-z2-7]+", local)
    assert domain == DOMAIN


WHOLE = {
    "16_octets": "x" * 16,
    "16_octets_of_unicode": "ü" * 8,
    "uuid": "0b5e8f2c-9d1a-4c7e-8a35-6f2d9b1c4e70",
    "uuid_hex": "0b5e8f2c9d1a4c7e8a356f2d9b1c4e70",
    "derived_by_mailcordon": "ge2dgnbvgy3tqojqgezdgnbvgy",
    "one": "1",
}


@pytest.mark.parametrize("message_id", WHOLE.values(), ids=WHOLE.keys())
def test_ids_up_to_16_octets_and_packable_ones_travel_whole(message_id: str) -> None:
    ticket = read_return_path(KEYS, path_of(message_id), now=NOW)
    assert isinstance(ticket, Ticket)
    assert ticket.message_id == message_id


@pytest.mark.parametrize("message_id", ["x" * 17, "ü" * 9, "DA39A3EE5E6B4B0D3255BFEF95601890AFD80709", "m" * 128])
def test_longer_ids_travel_as_a_hash(message_id: str) -> None:
    ticket = read_return_path(KEYS, path_of(message_id), now=NOW)
    assert isinstance(ticket, Ticket)
    assert (ticket.message_id, ticket.message_ref) == (None, message_ref(message_id))


@settings(max_examples=300)
@given(message_ids, st.data())
def test_any_case_folding_on_the_way_back_is_survived(message_id: str, data: st.DataObject) -> None:
    path = path_of(message_id)
    upper = data.draw(st.lists(st.booleans(), min_size=len(path), max_size=len(path)))
    folded = "".join(one.upper() if up else one for one, up in zip(path, upper, strict=True))
    assert isinstance(read_return_path(KEYS, folded, now=NOW), Ticket)


@settings(max_examples=1_000)
@given(message_ids, st.data())
def test_an_edited_token_never_verifies(message_id: str, data: st.DataObject) -> None:
    local, _, domain = path_of(message_id).partition("@")
    at = data.draw(st.integers(min_value=0, max_value=len(local) - 1))
    new = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz234567+-.=189"))
    how = data.draw(st.sampled_from(["change", "insert", "delete", "cut"]))
    edited = {
        "change": local[:at] + new + local[at + 1 :],
        "insert": local[:at] + new + local[at:],
        "delete": local[:at] + local[at + 1 :],
        "cut": local[:at],
    }[how]
    assume(edited != local)
    assert isinstance(read_return_path(KEYS, f"{edited}@{domain}", now=NOW), Forged)


def test_every_change_of_every_single_digit_is_noticed() -> None:
    local, _, domain = path_of("m-1").partition("@")
    for at in range(2, len(local)):
        for digit in set("abcdefghijklmnopqrstuvwxyz234567") - {local[at]}:
            edited = f"{local[:at]}{digit}{local[at + 1 :]}@{domain}"
            assert isinstance(read_return_path(KEYS, edited, now=NOW), Forged), (at, digit)


@settings(max_examples=500)
@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz234567", max_size=62))
def test_a_made_up_token_never_verifies(token: str) -> None:
    assert isinstance(read_return_path(KEYS, f"b+{token}@{DOMAIN}", now=NOW), Forged)


@settings(max_examples=500)
@given(st.text(max_size=80))
def test_any_text_is_answered(address: str) -> None:
    assert isinstance(read_return_path(KEYS, address, now=NOW), Forged)


def test_a_token_of_another_key_does_not_verify() -> None:
    other = Keys(address=KEYS.address, return_path=b"s" * 32)
    said = read_return_path(KEYS, path_of("m-1", keys=other), now=NOW)
    assert isinstance(said, Forged)
    assert said.reason == "bad_signature"


AGES = {
    "fresh": (0, None),
    "30_days": (30 * DAY_MS, None),
    "30_days_and_a_second": (30 * DAY_MS + 1000, "expired"),
    "years": (3650 * DAY_MS, "expired"),
    "clock_a_minute_behind": (-60_000, None),
    "two_hours_in_the_future": (-7_200_000, "not_yet"),
}


@pytest.mark.parametrize(("age_ms", "reason"), AGES.values(), ids=AGES.keys())
def test_a_token_is_believed_for_30_days(age_ms: int, reason: str | None) -> None:
    said = read_return_path(KEYS, path_of("m-1", sent_at=NOW), now=NOW + age_ms)
    assert (said.reason if isinstance(said, Forged) else None) == reason


@given(st.integers(min_value=1, max_value=10_000))
def test_an_expired_token_stays_expired(days_later: int) -> None:
    said = read_return_path(KEYS, path_of("m-1"), now=NOW + (30 + days_later) * DAY_MS)
    assert isinstance(said, Forged)


OTHERS = {
    "plain": ("ann@example.com", "not_ours"),
    "empty": ("", "not_ours"),
    "prefix_only": ("b+@x.example", "malformed"),
    "not_base32": ("b+0189@x.example", "malformed"),
    "too_short": ("b+aaaaaaaa@x.example", "malformed"),
    "too_long": ("b+" + "a" * 63 + "@x.example", "not_ours"),
    "srs": ("SRS0=ab=cd=x=b+aaaa@y.example", "not_ours"),
}


@pytest.mark.parametrize(("address", "reason"), OTHERS.values(), ids=OTHERS.keys())
def test_other_addresses_are_told_from_forged_ones(address: str, reason: str) -> None:
    said = read_return_path(KEYS, address, now=NOW)
    assert isinstance(said, Forged)
    assert said.reason == reason


@pytest.mark.parametrize("domain", ["", "a b", "x.example\r\nRCPT TO:<eve@evil.example>", "x.example>", "x..example"])
def test_a_domain_that_is_no_host_name_never_becomes_part_of_a_command_or_header(domain: str) -> None:
    with pytest.raises(ValueError, match="not a host name"):
        return_path(KEYS, campaign="c", message_id="m", address_hash=ANN, sent_at=NOW, domain=domain)
    with pytest.raises(ValueError, match="not a host name"):
        message_id_header(KEYS, campaign="c", message_id="m", domain=domain)


def test_an_international_domain_goes_out_as_a_labels() -> None:
    assert message_id_header(KEYS, campaign="c", message_id="m", domain="Bücher.de").endswith("@xn--bcher-kva.de>")


TOKENS = {
    "itself": ("m-1_B", "m-1_B"),
    "64_characters": ("x" * 64, "x" * 64),
    "short_h": ("h-1", "h-1"),
}


@pytest.mark.parametrize(("message_id", "token"), TOKENS.values(), ids=TOKENS.keys())
def test_an_atom_safe_id_is_its_own_token(message_id: str, token: str) -> None:
    assert message_token(message_id) == token


@settings(max_examples=500)
@given(message_ids)
def test_a_token_is_always_an_atom(message_id: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", message_token(message_id))


def test_an_id_that_poses_as_the_token_of_another_gets_its_own() -> None:
    token = message_token("order 17")
    assert message_token(token) != token


@settings(max_examples=300)
@given(message_ids, message_ids)
def test_different_ids_have_different_tokens(one: str, other: str) -> None:
    assume(one != other)
    assert message_token(one) != message_token(other)


@settings(max_examples=300)
@given(campaigns, message_ids)
def test_a_message_id_header_is_one_safe_line(campaign: str, message_id: str) -> None:
    header = message_id_header(KEYS, campaign=campaign, message_id=message_id, domain="shop.example")
    assert re.fullmatch(r"<[A-Za-z0-9_-]+\.[a-z0-9-]+\.[a-z2-7]{16}@shop\.example>", header)
    assert len(header) < 200


def header_of(message_id: str = "m-1", *, campaign: str = "spring-sale", keys: Keys = KEYS) -> str:
    return message_id_header(keys, campaign=campaign, message_id=message_id, domain="shop.example")


@settings(max_examples=300)
@given(campaigns, message_ids)
def test_a_message_id_header_reads_back_as_it_was_written(campaign: str, message_id: str) -> None:
    named = Named(campaign_name=campaign_name(campaign), message_id=message_token(message_id))
    assert read_message_id(KEYS, header_of(message_id, campaign=campaign)) == named


def test_a_message_id_header_is_the_same_at_every_attempt_and_does_not_change_between_versions() -> None:
    assert header_of() == "<m-1.spring-sale-e22abe2bc7ea.vpl7babskn2bwtwr@shop.example>"


@pytest.mark.parametrize(
    "around", ["{}", " {} ", "In-Reply-To: {}", "<x@y> {}"], ids=["alone", "blanks", "a field", "after another"]
)
def test_a_message_id_header_is_found_in_what_stands_around_it(around: str) -> None:
    assert isinstance(read_message_id(KEYS, around.format(header_of())), Named)


@given(st.data())
def test_an_edited_message_id_header_never_verifies(data: st.DataObject) -> None:
    header = header_of("m-1")
    place = data.draw(st.integers(1, header.index("@") - 1))
    other = data.draw(st.sampled_from(string.ascii_lowercase + string.digits + "-_."))
    edited = header[:place] + other + header[place + 1 :]
    assume(edited != header)
    assert isinstance(read_message_id(KEYS, edited), Forged)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        pytest.param(header_of(keys=Keys(address=b"a" * 32, return_path=b"x" * 32)), "bad_signature", id="another key"),
        pytest.param("<m-1.spring-sale-e22abe2bc7ea@shop.example>", "not_ours", id="without a mark"),
        pytest.param("", "not_ours", id="nothing"),
        pytest.param("<" + "a." * 5_000 + "@x>", "not_ours", id="long"),
    ],
)
def test_other_message_id_headers_are_told_from_forged_ones(header: str, reason: str) -> None:
    said = read_message_id(KEYS, header)
    assert isinstance(said, Forged)
    assert said.reason == reason


@given(st.text(max_size=300))
def test_any_text_is_answered_as_a_message_id_header(text: str) -> None:
    assert isinstance(read_message_id(KEYS, text), Forged)


@pytest.mark.parametrize(
    "wrapped",
    [
        pytest.param("{plain}", id="itself"),
        pytest.param("SRS0=ab1=cd={domain}={local}@forwarder.example", id="SRS0"),
        pytest.param("SRS1=xy=one.example==ab1=cd={domain}={local}@two.example", id="SRS1"),
        pytest.param("SRS0+ab1-cd-{domain}-{local}@forwarder.example", id="SRS0 with other separators"),
        pytest.param("prvs=1234abcdef={plain}", id="BATV"),
        pytest.param("rfc822;b+2B{token}@{domain}", id="xtext"),
        pytest.param("https://x.example/?from=b%2B{token}%40{domain}", id="in a URL"),
        pytest.param("b-{token}@{domain}", id="a minus"),
        pytest.param("SRS0=ab1=cd={domain}=b+2b{token}@forwarder.example", id="SRS0 in xtext"),
    ],
)
@given(message_id=message_ids)
def test_a_return_path_is_found_inside_of_what_others_made_of_it(wrapped: str, message_id: str) -> None:
    plain = path_of(message_id)
    local, _, domain = plain.partition("@")
    text = wrapped.format(plain=plain, local=local, domain=domain, token=local.removeprefix("b+"))
    assert return_paths_in(text) == [local]
    assert return_paths_in(text.upper()) == [local.upper().replace("B+", "b+")]


@given(st.text(alphabet="b+-2a=@ ", max_size=2_000))
def test_few_return_paths_are_looked_for_in_any_text(text: str) -> None:
    assert len(return_paths_in(text)) <= 3


GOLDEN = {
    "text": "m-1",
    "uuid": "0b5e8f2c-9d1a-4c7e-8a35-6f2d9b1c4e70",
    "hash": "an id that is longer than sixteen octets",
}


@pytest.mark.parametrize(("name", "message_id"), GOLDEN.items(), ids=GOLDEN.keys())
def test_return_paths_do_not_change_between_versions(name: str, message_id: str) -> None:
    """Bounces come back for a month: what yesterday's version wrote must be read today."""
    written = {
        "text": "b+cdrcvprly5usjaia2fqzqbtnfuywevh454nnyegq@bounces.shop.example",
        "uuid": "b+chrcvprly5usjaia2fqzqbqll2hszhi2jr7iunlpfwnryttqsremw6ygedu76@bounces.shop.example",
        "hash": "b+ctrcvprly5usjaia2fqzqbskvsh22frr7d4xmstmokqqnsinnpfuqnsqyntp4@bounces.shop.example",
    }[name]
    assert path_of(message_id) == written
    ticket = read_return_path(KEYS, written, now=NOW)
    assert isinstance(ticket, Ticket)
    assert ticket.message_ref == message_ref(message_id)


@given(st.emails(), st.emails())
def test_a_return_path_knows_the_address_that_its_message_went_to(one: str, other: str) -> None:
    hashed, foreign = address_hash(KEYS, one), address_hash(KEYS, other)
    path = return_path(KEYS, campaign="c", message_id="m", address_hash=hashed, sent_at=NOW, domain=DOMAIN)
    ticket = read_return_path(KEYS, path, now=NOW)
    assert isinstance(ticket, Ticket)
    assert (ticket.is_for(hashed), ticket.is_for(foreign)) == (True, hashed == foreign)


@given(st.text(max_size=80), message_ids)
def test_an_address_hash_of_any_form_gives_a_return_path(hashed: str, message_id: str) -> None:
    path = return_path(KEYS, campaign="c", message_id=message_id, address_hash=hashed, sent_at=NOW, domain=DOMAIN)
    ticket = read_return_path(KEYS, path, now=NOW)
    assert isinstance(ticket, Ticket)
    assert (ticket.is_for(hashed), len(path.partition("@")[0]) <= 64) == (True, True)


def token_of(message_id: str = "m-1", *, sent_at: int = NOW, campaign: str = "spring-sale", keys: Keys = KEYS) -> str:
    return unsubscribe_token(keys, campaign=campaign, message_id=message_id, address_hash=ANN, sent_at=sent_at)


@settings(max_examples=300)
@given(campaigns, message_ids, times)
def test_an_unsubscribe_token_reads_back_as_it_was_written(campaign: str, message_id: str, sent_at: int) -> None:
    token = token_of(message_id, sent_at=sent_at, campaign=campaign)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,99}", token)
    leave = read_unsubscribe_token(KEYS, token)
    assert isinstance(leave, Leave)
    assert leave.campaign_ref == campaign_ref(campaign)
    assert leave.message_ref == message_ref(message_id)
    assert leave.message_id in {message_id, None}
    assert leave.sent_at == sent_at // 1000 * 1000
    assert leave.address_hash == ANN


@given(st.integers(0, 98), st.sampled_from(string.ascii_letters + string.digits + "-_"))
def test_an_unsubscribe_token_with_one_other_character_is_forged(place: int, other: str) -> None:
    token = token_of("abcdefghijklmnopqrstuvwxyz")
    assume(token[place] != other)
    assert isinstance(read_unsubscribe_token(KEYS, token[:place] + other + token[place + 1 :]), Forged)


@given(st.one_of(st.text(max_size=200), st.from_regex(UNSUBSCRIBE_TOKEN, fullmatch=True)))
def test_nothing_else_is_an_unsubscribe_token(text: str) -> None:
    assert isinstance(read_unsubscribe_token(KEYS, text), Forged)


def test_a_link_says_nothing_to_who_sees_it() -> None:
    raw = base64.urlsafe_b64decode(token_of("m-visible") + "==")
    for secret in (b"m-visible", bytes.fromhex(ANN)[:8], campaign_ref("spring-sale")):
        assert secret not in raw
    assert token_of("m-1")[:20] != token_of("m-2")[:20]


@pytest.mark.parametrize(
    "keys",
    [Keys(address=b"a" * 32, return_path=b"x" * 32), Keys(address=b"r" * 32, return_path=b"a" * 32)],
    ids=["another", "swapped"],
)
def test_the_links_of_another_installation_are_forged(keys: Keys) -> None:
    answer = read_unsubscribe_token(KEYS, token_of(keys=keys))
    assert isinstance(answer, Forged)
    assert answer.reason == "bad_signature"


def test_a_return_path_is_no_unsubscribe_link_and_the_other_way_round() -> None:
    local = path_of("m-1").partition("@")[0].removeprefix("b+")
    assert isinstance(read_unsubscribe_token(KEYS, local), Forged)
    assert isinstance(read_return_path(KEYS, f"b+{token_of()}@{DOMAIN}", now=NOW), Forged)


@pytest.mark.parametrize("odd", ["h", "abcd", "zz" * 32, "0" * 62])
def test_an_address_hash_that_could_not_be_suppressed_gets_no_link(odd: str) -> None:
    with pytest.raises(ValueError, match="hex"):
        unsubscribe_token(KEYS, campaign="c", message_id="m", address_hash=odd, sent_at=NOW)
