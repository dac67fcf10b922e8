"""What each screen has against a recipient, and that the campaign's policy says what follows."""

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.addresses import CheckedAddress, check
from policy.screens import CONTACT, Objection, Screens
from policy.tokens import Keys, address_hash
from policy.traps import TrapFact, domain_hash
from schemas.sending import AdmissionPolicy, Recipient

KEYS = Keys(address=b"a" * 32, return_path=b"r" * 32)
DAY_MS = 86_400_000
NOW = 1_764_000_000_000
SCREENS = ("known_trap", "typo_domain", "disposable", "role_account", "recycled", "sunset", "age", "provenance")
BY_DEFAULT = AdmissionPolicy()
ALL_OFF = AdmissionPolicy(**dict.fromkeys(SCREENS, "off"))  # type: ignore[arg-type]


def objections(
    address: str,
    policy: AdmissionPolicy = BY_DEFAULT,
    *,
    traps: Mapping[str, TrapFact] | None = None,
    recycled: Mapping[str, str] | None = None,
    **fields: object,
) -> list[Objection]:
    checked = check(address)
    assert isinstance(checked, CheckedAddress)
    screens = Screens(KEYS, trap=(traps or {}).get, recycled=lambda hashed, _: (recycled or {}).get(hashed))
    recipient = Recipient(address=address, **fields)  # type: ignore[arg-type]
    return screens.of(policy).objections(recipient, checked, address_hash(KEYS, address), NOW)


def screened(address: str, policy: AdmissionPolicy = BY_DEFAULT, **given_with: object) -> list[tuple[str, str]]:
    return [(one.screen, one.does) for one in objections(address, policy, **given_with)]  # type: ignore[arg-type]


def only(**screens: object) -> AdmissionPolicy:
    return msgspec.structs.replace(ALL_OFF, **screens)


@pytest.mark.parametrize(
    "local",
    [
        *("abuse", "postmaster", "hostmaster", "webmaster", "noc", "security", "mailer-daemon", "MAILER-DAEMON"),
        *("spam", "junk", "root", "no-reply", "noreply", "No_Reply", "do-not-reply", "donotreply", "uucp", "usenet"),
        *("list-request", "ispfeedback", "Postmaster", "post.master", "abuse+tag", "announce-request", "n.o.c"),
    ],
)
def test_role_accounts_are_refused(local: str) -> None:
    assert screened(f"{local}@example.com") == [("role_account", "refuse")]


@pytest.mark.parametrize("local", ["ann", "rooter", "nora", "abuser", "noctua", "spammy", "request", "ann.request"])
def test_people_pass(local: str) -> None:
    assert screened(f"{local}@example.com") == []


@pytest.mark.parametrize("local", ["info", "Sales", "hello+x", "con-tact", "kontakt"])
def test_contact_addresses_are_flagged_at_most(local: str) -> None:
    assert screened(f"{local}@example.com") == [(CONTACT, "flag")]
    assert screened(f"{local}@example.com", ALL_OFF) == []


@pytest.mark.parametrize("address", ["ann@gmial.com", "ann@GMIAL.com", "ann@hotmail.con"])
def test_a_misspelt_domain_is_refused_and_the_likely_one_named(address: str) -> None:
    (objection,) = [one for one in objections(address) if one.screen == "typo_domain"]
    assert objection.does == "refuse"
    assert ("gmail.com" in objection.explain) != ("hotmail.com" in objection.explain)


@pytest.mark.parametrize("address", ["ann@mailinator.com", "ann@x.y.mailinator.com"])
def test_a_disposable_domain_is_flagged_unless_the_campaign_wants_otherwise(address: str) -> None:
    assert screened(address) == [("disposable", "flag")]
    assert screened(address, only(disposable="refuse")) == [("disposable", "refuse")]


TRAPS = {
    "the_address": address_hash(KEYS, "trap@example.com"),
    "its_domain": domain_hash(KEYS, "example.com"),
}


@pytest.mark.parametrize("hashed", TRAPS.values(), ids=TRAPS.keys())
def test_a_trap_of_ours_is_known_by_address_and_by_domain(hashed: str) -> None:
    fact = TrapFact(kind="pristine", where="page-7")
    (objection,) = objections("Trap@Example.com", traps={hashed: fact})
    assert (objection.screen, objection.does) == ("known_trap", "refuse")
    assert "page-7" not in objection.explain


@pytest.mark.parametrize(("since", "found"), [(NOW, ["known_trap"]), (NOW + 1, [])])
def test_a_trap_is_one_from_its_registration_on(since: int, found: list[str]) -> None:
    hashed = address_hash(KEYS, "trap@example.com")
    assert [name for name, _ in screened("trap@example.com", traps={hashed: TrapFact(since=since)})] == found


def test_a_trap_domain_does_not_stand_for_an_address_of_the_same_name_elsewhere() -> None:
    assert screened("ann@other.example", traps={domain_hash(KEYS, "example.com"): TrapFact()}) == []


@pytest.mark.parametrize("hashed", TRAPS.values(), ids=TRAPS.keys())
def test_what_may_be_recycled_is_held(hashed: str) -> None:
    assert screened("trap@example.com", recycled={hashed: "did not exist in spring"}) == [("recycled", "hold")]


def at(days_ago: float) -> int:
    return int(NOW - days_ago * DAY_MS)


AGES: dict[str, tuple[AdmissionPolicy, dict[str, object], list[tuple[str, str]]]] = {
    "seen_lately": (only(sunset="refuse"), {"last_seen_at": at(365)}, []),
    "not_seen_for_long": (only(sunset="refuse"), {"last_seen_at": at(365.1)}, [("sunset", "refuse")]),
    "signed_up_again": (only(sunset="refuse"), {"last_seen_at": at(900), "opted_in_at": at(1)}, []),
    "never_seen_is_not_sunset": (only(sunset="refuse"), {"opted_in_at": at(900)}, []),
    "a_sunset_of_its_own": (only(sunset="hold", sunset_days=10), {"last_seen_at": at(11)}, [("sunset", "hold")]),
    "old": (only(age="hold"), {"opted_in_at": at(731)}, [("age", "hold")]),
    "old_but_seen": (only(age="hold"), {"opted_in_at": at(731), "last_seen_at": at(400)}, []),
    "young_enough": (only(age="hold"), {"opted_in_at": at(730)}, []),
    "age_unknown": (only(age="hold"), {}, []),
    "no_source": (only(provenance="refuse"), {"opted_in_at": at(1)}, [("provenance", "refuse")]),
    "blank_source": (only(provenance="flag"), {"source": " ", "opted_in_at": at(1)}, [("provenance", "flag")]),
    "no_opt_in": (only(provenance="refuse"), {"source": "form"}, [("provenance", "refuse")]),
    "opted_in_tomorrow": (
        only(provenance="refuse"),
        {"source": "form", "opted_in_at": at(-2)},
        [("provenance", "refuse")],
    ),
    "provenance_told": (only(provenance="refuse"), {"source": "form", "opted_in_at": at(1)}, []),
    "nobody_asks": (ALL_OFF, {"last_seen_at": at(9000)}, []),
    "by_default_age_is_not_asked": (AdmissionPolicy(), {"opted_in_at": at(9000)}, []),
}


@pytest.mark.parametrize(("policy", "fields", "found"), AGES.values(), ids=AGES.keys())
def test_sunset_age_and_provenance(
    policy: AdmissionPolicy, fields: dict[str, object], found: list[tuple[str, str]]
) -> None:
    assert screened("ann@example.com", policy, **fields) == found


def test_the_worst_comes_first_and_the_others_are_told_too() -> None:
    policy = AdmissionPolicy(typo_domain="flag", recycled="hold", provenance="refuse")
    hashed = address_hash(KEYS, "info@gmial.com")
    found = screened("info@gmial.com", policy, recycled={hashed: "was gone"})
    assert found[:2] == [("provenance", "refuse"), ("recycled", "hold")]
    assert found[-1] == (CONTACT, "flag")
    assert ("typo_domain", "flag") in found


ODD = ["abuse@gmial.com", "info@x.mailinator.com", "zebra@hotmail.con", "zebra@mailinator.com"]
choices = st.fixed_dictionaries({name: st.sampled_from(["refuse", "hold", "flag", "off"]) for name in SCREENS})


@given(st.sampled_from(ODD), choices)
def test_a_screen_does_what_the_policy_says_and_what_is_off_says_nothing(address: str, chosen: dict[str, str]) -> None:
    found = objections(address, AdmissionPolicy(**chosen))  # type: ignore[arg-type]
    assert all(one.does == chosen.get(one.screen, "flag") != "off" for one in found)
    assert [one.severity for one in found] == sorted((one.severity for one in found), reverse=True)


@given(st.sampled_from(ODD))
def test_no_sentence_quotes_the_address(address: str) -> None:
    local, _, domain = address.partition("@")
    hashed = address_hash(KEYS, address)
    policy = AdmissionPolicy(**dict.fromkeys(SCREENS, "flag"))  # type: ignore[arg-type]
    for one in objections(address, policy, traps={hashed: TrapFact()}, recycled={hashed: "was gone"}):
        assert domain not in one.explain
        assert f" {local} " not in one.explain
