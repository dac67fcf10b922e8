"""The name of a source address, asked of a real name server on loopback; and a sender that waits for it."""

from collections.abc import Callable

import pytest

from policy.settings import Endpoint, Proxy
from smtp.egress.check import EVERY_S, Check, Checked, Strictness, Watch
from smtp.egress.identity import Names, identities, judged, names_of, own_addresses
from smtp.egress.outage import Outage
from smtp.egress.ways import Egress
from tests.doubles.name_server import SERVFAIL, SILENCE, Zone, ptr, resolving

HERE, HERE_V6 = "9.9.9.9", "2620:fe::fe"
NAME = "mta1.shop.example"
GOOD: dict[tuple[str, str], str | list[str]] = {
    ptr(HERE): [f"{NAME}."],
    ptr(HERE_V6): [f"{NAME}."],
    (f"{NAME}.", "A"): ["8.8.8.8", HERE],
    (f"{NAME}.", "AAAA"): [HERE_V6],
}


@pytest.mark.parametrize("address", [HERE, HERE_V6])
async def test_a_name_that_leads_back_is_confirmed(address: str) -> None:
    async with resolving(GOOD) as resolver:
        assert await names_of(address, resolver) == Names(address=address, ptr=(NAME,), confirmed=(NAME,))


@pytest.mark.parametrize(
    ("zone", "found"),
    [
        pytest.param({}, Names(address=HERE), id="no PTR"),
        pytest.param({ptr(HERE): ["X.Example."]}, Names(address=HERE, ptr=("x.example",)), id="a name without address"),
        pytest.param(
            {ptr(HERE): ["x.example."], ("x.example.", "A"): ["8.8.8.8"]},
            Names(address=HERE, ptr=("x.example",)),
            id="a name of another address",
        ),
        pytest.param(
            {ptr(HERE): ["x.example.", "y.example."], ("y.example.", "A"): [HERE]},
            Names(address=HERE, ptr=("x.example", "y.example"), confirmed=("y.example",)),
            id="two names",
        ),
    ],
)
async def test_names_are_taken_as_the_name_server_has_them(zone: Zone, found: Names) -> None:
    async with resolving(zone) as resolver:
        names = await names_of(HERE, resolver)

    assert (sorted(names.ptr), names.confirmed) == (sorted(found.ptr), found.confirmed)


@pytest.mark.parametrize(
    "zone",
    [
        pytest.param({ptr(HERE): SILENCE}, id="silent"),
        pytest.param({ptr(HERE): SERVFAIL}, id="failing"),
        pytest.param({ptr(HERE): ["x.example."], ("x.example.", "A"): SERVFAIL}, id="failing on the way back"),
    ],
)
async def test_a_name_server_that_fails_is_no_wrong_name(zone: Zone) -> None:
    async with resolving(zone) as resolver:
        [identity] = await identities([HERE], ehlo=NAME, resolver=resolver)

    assert identity.answer == "unanswered"


JUDGED: list[tuple[tuple[str, ...], tuple[str, ...], str | None, str, str]] = [
    ((NAME,), (NAME,), NAME, "verified", f"EHLO says {NAME}, the PTR of {HERE}, which leads back to it"),
    ((NAME,), (NAME,), None, "verified", f"EHLO says {NAME}, the PTR of {HERE}, which leads back to it"),
    (("b.example", "a.example"), ("b.example", "a.example"), None, "verified", "EHLO says a.example"),
    (("x.example",), ("x.example",), NAME, "wrong", f"PTR of {HERE} is x.example, EHLO says {NAME}: set MAILCORDON_"),
    ((), (), NAME, "wrong", f"{HERE} has no PTR: let the owner of the address set it to {NAME}"),
    ((), (), None, "wrong", f"{HERE} has no PTR"),
    ((NAME,), (), NAME, "wrong", f"PTR of {HERE} is {NAME}, which does not lead back to it: add A {HERE} to {NAME}"),
    (("x.example",), (), None, "wrong", "which does not lead back to it"),
    ((NAME, "x.example"), ("x.example",), NAME, "wrong", f"add A {HERE} to {NAME}"),
]


@pytest.mark.parametrize(("names", "confirmed", "ehlo", "answer", "why"), JUDGED)
def test_a_verdict_names_the_fix(
    names: tuple[str, ...], confirmed: tuple[str, ...], ehlo: str | None, answer: str, why: str
) -> None:
    identity = judged(Names(address=HERE, ptr=names, confirmed=confirmed), ehlo=ehlo)

    assert (identity.answer, identity.why[: len(why)] == why or why in identity.why) == (answer, True), identity.why


async def test_a_private_address_is_not_checked_and_that_is_said() -> None:
    [identity] = await identities(["10.0.3.4"], ehlo=NAME)

    assert identity.answer == "not_checked"
    assert identity.why.startswith("source address 10.0.3.4 is private, not checked")


async def test_all_addresses_go_by_one_name() -> None:
    zone = GOOD | {ptr(HERE_V6): ["six.shop.example."], ("six.shop.example.", "AAAA"): [HERE_V6]}
    async with resolving(zone) as resolver:
        found = await identities([HERE, HERE_V6], ehlo=None, resolver=resolver)

    assert [one.answer for one in found] == ["verified", "wrong"]
    assert f"EHLO says {NAME}" in found[1].why


def test_finding_out_our_addresses_asks_nobody() -> None:
    assert all(isinstance(address, str) for address in own_addresses())


# ---- which addresses are checked


def check(egress: Egress, **more: object) -> Check:
    known = {"hostname": NAME, "machine": "host.local", "own": lambda: [HERE]} | more
    return Check(egress=egress, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("egress", "addresses"),
    [
        (Egress(), [HERE]),
        (Egress(bind=("127.0.0.1",)), ["127.0.0.1"]),
        (Egress(bind=("127.0.0.1",), addresses=(HERE_V6,)), [HERE_V6]),
    ],
    ids=["of the route", "bound", "as servers see it"],
)
async def test_the_address_that_servers_see_is_checked(egress: Egress, addresses: list[str]) -> None:
    async with resolving(GOOD) as resolver:
        checked = await check(egress, resolver=resolver)()

    assert [one.address for one in checked.identities] == addresses
    assert checked.ok


async def test_behind_a_relay_our_own_name_does_not_count() -> None:
    checked = await check(Egress(), relay="relay.example:587")()

    assert checked.ok
    assert checked.identities == ()


async def test_a_dead_proxy_is_found_before_mail_is_taken() -> None:
    checked = await check(Egress(proxy=Proxy("socks5", Endpoint("127.0.0.1", 1)), addresses=(HERE,)))()

    assert not checked.ok
    assert checked.why == "egress proxy socks5://127.0.0.1:1: Connection refused"


@pytest.mark.parametrize(
    ("hostname", "own", "ehlo"),
    [
        (None, [HERE], NAME),
        (None, ["10.0.0.1"], "host.local"),
        (None, [], "host.local"),
        ("set.example", ["10.0.0.1"], "set.example"),
    ],
    ids=["the PTR", "the machine's", "the machine's, offline", "the one that is set"],
)
async def test_what_ehlo_says(hostname: str | None, own: list[str], ehlo: str) -> None:
    async with resolving(GOOD) as resolver:
        checked = await check(Egress(), hostname=hostname, own=lambda: own, resolver=resolver)()

    assert (checked.ehlo, checked.ok) == (ehlo, True)


# ---- a sender that waits


class Slept:
    """A sleep that returns at once, remembers for how long, and lets things happen meanwhile."""

    def __init__(self, *happens: Callable[[], None]) -> None:
        self.seconds: list[float] = []
        self._happens = list(happens)

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if not self._happens:
            raise TimeoutError("nothing more happens")
        self._happens.pop(0)()


WRONG = Checked(ehlo=NAME, trouble="PTR of 9.9.9.9 is x.example, EHLO says mta1.shop.example: set it")
RIGHT = Checked(ehlo=NAME, note="fine")


async def test_a_sender_waits_until_its_name_is_right_and_says_why_meanwhile() -> None:
    answers = iter([WRONG, WRONG, RIGHT])
    said: list[str | None] = []

    async def look() -> Checked:
        return next(answers)

    sleep = Slept(lambda: said.append(watch.why), lambda: said.append(watch.why))
    watch = Watch(check=look, strictness="require", sleep=sleep)

    assert watch.why is not None
    assert await watch.verified() == NAME
    assert said == [f"the source address is not verified: {WRONG.why}"] * 2
    assert sleep.seconds == [5, 10]
    assert (watch.why, watch.ok) == (None, 1.0)


async def test_with_warn_a_sender_goes_on_and_the_metric_tells() -> None:
    async def look() -> Checked:
        return WRONG

    watch = Watch(check=look, strictness="warn", sleep=Slept())

    assert await watch.verified() == NAME
    assert (watch.why, watch.ok) == (None, 0.0)


ELSEWHERE = Checked(ehlo=NAME, elsewhere="mail leaves from 9.9.9.8 and not from 9.9.9.9")
UNSEEN = Checked(ehlo=NAME, unseen="the mirror does not tell")


@pytest.mark.parametrize("strictness", ["require", "warn", "off"])
@pytest.mark.parametrize("first", [ELSEWHERE, UNSEEN], ids=["elsewhere", "unseen"])
async def test_nothing_begins_before_the_mirror_has_seen_the_right_address(
    first: Checked, strictness: Strictness
) -> None:
    answers = iter([first, RIGHT])
    said: list[str | None] = []

    async def look() -> Checked:
        return next(answers)

    watch = Watch(check=look, strictness=strictness, sleep=Slept(lambda: said.append(watch.why)))

    assert await watch.verified() == NAME
    assert said == [f"the source address is not verified: {first.why}"]


async def test_mail_waits_from_when_a_wrong_address_is_seen_until_the_right_one_is() -> None:
    answers = iter([RIGHT, UNSEEN, ELSEWHERE, UNSEEN, ELSEWHERE, RIGHT])
    held: list[float] = []

    async def look() -> Checked:
        return next(answers)

    outage = Outage()
    told = [lambda: held.append(outage.held_for_s(now_s=0.0))] * 5
    sleep = Slept(*told)
    watch = Watch(check=look, strictness="warn", outage=outage, every_s=300, sleep=sleep)
    await watch.verified()
    with pytest.raises(TimeoutError):
        await watch.keep()

    assert held == [0, 0, 1, 1, 1], "it is asked before each look"
    assert outage.held_for_s(now_s=0.0) == 0
    assert sleep.seconds == [300, 300, 10, 5, 10, 300]


async def test_a_name_that_breaks_later_stops_nobody_and_the_metric_tells() -> None:
    answers = iter([RIGHT, WRONG])

    async def look() -> Checked:
        return next(answers)

    sleep = Slept(lambda: None)
    watch = Watch(check=look, strictness="require", sleep=sleep)
    await watch.verified()
    with pytest.raises(TimeoutError):
        await watch.keep()

    assert sleep.seconds == [EVERY_S, EVERY_S]
    assert (watch.why, watch.ok) == (None, 0.0)
