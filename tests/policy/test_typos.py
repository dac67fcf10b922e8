"""Misspelt domains of large providers are found; real domains, however near, never are."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy import providers
from policy.typos import distance, is_real, likely_domain, shipped

MEANT = {
    "gmail.com": (
        "gmial.com gmai.com gamil.com gnail.com gmal.com gmaill.com gmsil.com gmaul.com gmqil.com gmali.com hmail.com "
        "mgail.com gmaip.com gmail.co gmail.con gmail.cm gmail.om gmail.comm gmail.cmo gmial.con gnail.co ggmail.com"
    ),
    "hotmail.com": (
        "hotmial.com hotmal.com hotmai.com hotmil.com hotnail.com homail.com hotmaill.com htmail.com hotmail.con "
        "hotmail.co ohtmail.com hotmakl.com"
    ),
    "hotmail.co.uk": "hotmail.couk hotmial.co.uk hotmail.co.ik",
    "hotmail.fr": "hotmial.fr hotmai.fr hotmaill.fr",
    "yahoo.com": "yaho.com yahooo.com yhoo.com yaoo.com yshoo.com yahou.com yahoo.con yahoo.cm yahho.com",
    "outlook.com": "outlok.com outloo.com outlool.com oulook.com outllok.com outlook.cm",
    "icloud.com": "iclod.com icoud.com icloud.co iclould.com",
    "googlemail.com": "googelmail.com goglemail.com googlemial.com gogglemial.com googlemail.con",
    "protonmail.com": "protonmial.com protomail.com protnmal.com",
    "comcast.net": "comcst.net comast.net comcast.nte",
    "verizon.net": "verizon.con",
    "live.com": "live.con",
    "msn.com": "msn.con",
    "aol.com": "aoll.com aol.cm",
    "web.de": "web.d wbe.de",
    "gmx.de": "gmx.d",
    "t-online.de": "tonline.de t-onlien.de",
    "mail.ru": "maill.ru mial.ru",
}
MISSPELT = [(typo, meant) for meant, typos in MEANT.items() for typo in typos.split()]
REAL = [
    "gmx.net",
    "mail.com",
    "ymail.com",
    "email.com",
    "mmail.com",
    "hotmail.fr",
    "live.nl",
    "web.de",
    "aol.de",
    "me.com",
    "mac.com",
    "gmail.com",
    "yahoo.co.jp",
    "yahoo.com.br",
    "outlook.com",
    "icloud.com",
    "gotmail.com",
    "hostmail.com",
    "wahoo.com",
    "yazoo.com",
    "ao.com",
    "cloud.com",
    "google.com",
    "imail.ru",
    "zmail.ru",
    "mail.ru",
    "q.com",
    "qq.com",
    "mai.ru",
    "libera.it",
    "orage.fr",
    "libre.it",
    "range.fr",
    "incloud.com",
    "idcloud.com",
    "example.com",
    "example.org",
    "shop.example",
    "gmail.de",
    "hotmail.cz",
    "live.ru",
    "proton.me",
    "protonmail.ch",
    "horizon.net",
    "prontomail.com",
    "earthling.net",
    "rackmail.com",
    "pocketmail.com",
    "fastmail.com",
    "hushmail.com",
    "t-online.hu",
    "freenet.org",
    "mail.google.com",
    "gmail.example.com",
    "outlooks.com",
    "gmx.co.uk",
    "yandex.kz",
    "mail.de",
    "live.co",
    "com",
    "localhost",
    "a.b",
]


@pytest.mark.parametrize(("typo", "meant"), MISSPELT, ids=[typo for typo, _ in MISSPELT])
def test_a_misspelt_domain_is_found_with_the_one_that_was_meant(typo: str, meant: str) -> None:
    assert likely_domain(typo) == meant


@pytest.mark.parametrize("domain", REAL)
def test_a_real_domain_is_no_misspelling(domain: str) -> None:
    assert likely_domain(domain) is None


def test_no_domain_of_a_known_provider_is_a_misspelling() -> None:
    assert [one for one in providers.shipped() if likely_domain(one) is not None] == []


def test_the_tables_do_not_contradict_each_other() -> None:
    tables = shipped()
    assert {typo for typo in tables._known if is_real(typo)} == set()
    assert {meant for meant in tables._known.values() if not is_real(meant)} == set()


DISTANCES = {
    ("", ""): 0,
    ("gmail", "gmail"): 0,
    ("gmail", "gmial"): 1,
    ("gmail", "gmal"): 1,
    ("gmail", "gmaill"): 1,
    ("gmail", "gnail"): 1,
    ("gmail", "gnial"): 2,
    ("ca", "abc"): 3,  # of unrestricted Damerau it would be 2
    ("abc", ""): 3,
}


@pytest.mark.parametrize(("pair", "edits"), DISTANCES.items(), ids=["-".join(pair) for pair in DISTANCES])
def test_distance_is_that_of_optimal_string_alignment(pair: tuple[str, str], edits: int) -> None:
    assert distance(*pair) == distance(*reversed(pair)) == edits


@settings(max_examples=500)
@given(st.sampled_from(["hotmail", "outlook", "comcast"]), st.data())
def test_what_the_table_holds_is_one_edit_away(name: str, data: st.DataObject) -> None:
    near = [typo for typo, names in shipped()._near.items() if name in names]
    assert distance(data.draw(st.sampled_from(near)), name) == 1


names = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789-.", max_size=30)


@settings(max_examples=500)
@given(names)
def test_any_text_gets_an_answer_that_is_a_real_domain_or_none(domain: str) -> None:
    found = likely_domain(domain)
    assert found is None or (is_real(found) and found != domain)
