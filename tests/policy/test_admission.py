"""Every recipient leaves with a message or a refusal that names field and fix; nobody's address is told."""

import json
import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.admission import Admission, admit, derived_message_id
from policy.screens import Screens
from policy.templates import BadContent, Template, compile_content
from policy.tokens import Keys, Ticket, address_hash, read_return_path, return_path
from policy.traps import domain_hash
from schemas.codec import DecodedRequest, decode_request
from schemas.sending import AdmissionPolicy, Campaign, Content, Mailbox, Recipient, Refused, SendRequest, Var

NOW = 1_764_000_000_000
KEYS = Keys(address=b"a" * 32, return_path=b"r" * 32)
CAMPAIGN = Campaign(
    campaign="spring-sale",
    from_=Mailbox(name="The Shop", address="news@shop.example"),
    return_path_domain="bounces.shop.example",
)


def template_of(**parts: object) -> Template | BadContent:
    fields = {"subject": "Hello", "text": "Dear {{name}}"} | parts
    return compile_content(Content(campaign="spring-sale", content="hello-1", **fields))  # type: ignore[arg-type]


TEMPLATE = template_of()


def asked(*recipients: Recipient | str, not_before: int | None = None, expires_at: int | None = None) -> DecodedRequest:
    given_recipients = [
        Recipient(address=one, message_id=f"m-{n}", vars={"name": "Ann"}) if isinstance(one, str) else one
        for n, one in enumerate(recipients)
    ]
    request = SendRequest(
        request_id="r-1",
        campaign="spring-sale",
        content="hello-1",
        recipients=given_recipients,
        not_before=not_before,
        expires_at=expires_at,
    )
    return DecodedRequest(request=request, malformed=[])


def admitted(
    request: DecodedRequest,
    *,
    campaign: Campaign | None = CAMPAIGN,
    template: Template | BadContent | None = TEMPLATE,
    suppressed: dict[str, str] | None = None,
    screens: Screens | None = None,
) -> Admission:
    return admit(
        request,
        campaign=campaign,
        template=template,
        suppressed=(suppressed or {}).get,
        keys=KEYS,
        now=NOW,
        screens=screens,
    )


def the_refusal(admission: Admission) -> Refused:
    (refused,) = admission.refused
    return refused


def recipient(address: str = "ann@example.com", message_id: str | None = "m-1", **given_vars: Var) -> Recipient:
    return Recipient(address=address, message_id=message_id, vars=given_vars or {"name": "Ann"}, source="form")


def test_a_good_recipient_becomes_a_message() -> None:
    admission = admitted(asked(recipient("Ann@BÜCHER.example")))
    assert admission.refused == []
    (message,) = admission.messages
    assert message.message_id == "m-1"
    assert message.address == "Ann@xn--bcher-kva.example"
    assert message.address_hash == address_hash(KEYS, "ann@bücher.example")
    assert (message.vars, message.source) == ({"name": "Ann"}, "form")


WHOLE = {
    "unknown_campaign": ({"campaign": None}, "unknown_campaign", "field campaign"),
    "unknown_content": ({"template": None}, "unknown_content", "field content"),
    "bad_content": ({"template": template_of(subject="{{ 7*7 }}")}, "bad_content", "field subject"),
}


@pytest.mark.parametrize(("given_with", "reason", "field"), WHOLE.values(), ids=WHOLE.keys())
def test_a_request_that_cannot_be_sent_is_refused_once_per_recipient(
    given_with: dict[str, object], reason: str, field: str
) -> None:
    admission = admitted(asked("ann@example.com", "bob@example.com"), **given_with)  # type: ignore[arg-type]
    assert admission.messages == []
    assert [(one.message_id, one.reason, one.stage) for one in admission.refused] == [
        ("m-0", reason, "validate"),
        ("m-1", reason, "validate"),
    ]
    assert admission.refused[0].address_hash == address_hash(KEYS, "ann@example.com")
    assert field in admission.refused[0].explain


@pytest.mark.parametrize(
    "wrong",
    [
        {"return_path_domain": "bounces.shop.example\r\nRCPT TO:<eve@evil.example>"},
        {"return_path_domain": "b..example"},
        {"from_": Mailbox(address="news@shop.example>\r\nBcc: eve@evil.example")},
        {"from_": Mailbox(address="a, b@shop.example")},
        {"from_": Mailbox(address="@shop.example")},
        {"unsubscribe_url": "https://u.shop.example/u>\r\nBcc: eve@evil.example"},
        {"admission": AdmissionPolicy(deny_domains=("*.example.com",))},
    ],
    ids=[
        *("injected_return_path", "no_host_name", "injected_from", "two_mailboxes", "no_local_part", "injected_link"),
        "no_domain",
    ],
)
def test_a_campaign_whose_own_addresses_cannot_stand_in_a_mail_sends_nothing(wrong: dict[str, object]) -> None:
    fields = {"campaign": "spring-sale", "from_": CAMPAIGN.from_, "return_path_domain": "bounces.shop.example"} | wrong
    campaign = Campaign(**fields)  # type: ignore[arg-type]
    assert the_refusal(admitted(asked("ann@example.com"), campaign=campaign)).reason == "bad_campaign"


def test_a_campaign_of_a_test_set_up_may_use_reserved_names() -> None:
    campaign = Campaign(campaign="c", from_=Mailbox(address="news@shop.test"), return_path_domain="localhost")
    assert len(admitted(asked("ann@example.com"), campaign=campaign).messages) == 1


TIMES = {
    "expired": ({"expires_at": NOW - 1}, "expired"),
    "expires_now": ({"expires_at": NOW}, "expired"),
    "expires_later": ({"expires_at": NOW + 1}, None),
    "starts_later": ({"not_before": NOW + 10}, None),
    "starts_when_it_expires": ({"not_before": NOW + 10, "expires_at": NOW + 10}, "expired"),
    "starts_before_it_expires": ({"not_before": NOW + 9, "expires_at": NOW + 10}, None),
}


@pytest.mark.parametrize(("times", "reason"), TIMES.values(), ids=TIMES.keys())
def test_the_times_of_a_request_must_leave_time_to_send(times: dict[str, int], reason: str | None) -> None:
    admission = admitted(asked("ann@example.com", **times))
    assert [one.reason for one in admission.refused] == ([] if reason is None else [reason])


SIZES = {0: "no_recipients", 1: None, 500: None, 501: "too_many_recipients", 20_000: "too_many_recipients"}


@pytest.mark.parametrize(("number", "reason"), SIZES.items(), ids=map(str, SIZES))
def test_a_request_has_1_to_500_recipients(number: int, reason: str | None) -> None:
    admission = admitted(asked(*(f"user{n}@example.com" for n in range(number))))
    if reason is None:
        assert (len(admission.messages), admission.refused) == (number, [])
    else:
        refused = the_refusal(admission)
        assert (refused.reason, refused.message_id, refused.address_hash) == (reason, None, None)
        assert "500" in refused.explain


def test_recipients_that_cannot_be_read_are_refused_and_their_neighbours_are_sent() -> None:
    raw = json.dumps(
        {
            "v": 1,
            "request_id": "r-1",
            "campaign": "spring-sale",
            "content": "hello-1",
            "recipients": [
                {"address": 5},
                {"address": "bob@", "message_id": "m-1"},
                {"address": "ann@example.com", "message_id": "m-2", "vars": {"name": "Ann"}},
                {"message_id": "m-3"},
                "ann",
            ],
        }
    ).encode()
    request = decode_request(raw)
    assert isinstance(request, DecodedRequest)
    admission = admitted(request)
    assert [one.message_id for one in admission.messages] == ["m-2"]
    said = [(one.stage, one.reason, one.explain.split(" of ")[0].split(".")[0]) for one in admission.refused]
    assert said == [
        ("decode", "wrong_field", "field recipients[0]"),
        ("decode", "wrong_field", "field recipients[3]"),
        ("decode", "wrong_field", "field recipients[4]"),
        ("validate", "bad_address", "field recipients[1]"),
    ]


def test_unreadable_recipients_count_for_the_size_of_a_request() -> None:
    parts = [{"address": 5}] + [{"address": f"u{n}@example.com", "vars": {"name": "A"}} for n in range(500)]
    raw = json.dumps({"v": 1, "request_id": "r", "campaign": "c", "content": "x", "recipients": parts}).encode()
    request = decode_request(raw)
    assert isinstance(request, DecodedRequest)
    assert the_refusal(admitted(request)).reason == "too_many_recipients"


SINGLE = {
    "bad_address": (recipient("ann@@example.com"), "bad_address", "recipients[0].address"),
    "line_break_in_address": (recipient("ann@example.com\r\nRCPT TO:<eve@evil.example>"), "bad_address", "line break"),
    "empty_address": (recipient(""), "bad_address", "is empty"),
    "missing_variable": (recipient(other="x"), "missing_variable", "vars lacks name"),
    "bad_variable": (recipient(name="a\0b"), "bad_variable", "vars.name"),
    "long_variable": (recipient(name="x" * 10_001), "bad_variable", "10,000"),
    "empty_id": (recipient(message_id=""), "bad_message_id", "recipients[0].message_id"),
    "long_id": (recipient(message_id="x" * 129), "bad_message_id", "128"),
    "control_in_id": (recipient(message_id="m\r\n1"), "bad_message_id", "control"),
    "separator_in_id": (recipient(message_id="m\u20281"), "bad_message_id", "control"),
}


@pytest.mark.parametrize(("one", "reason", "said"), SINGLE.values(), ids=SINGLE.keys())
def test_a_single_recipient_is_refused_with_field_and_fix_and_the_next_is_sent(
    one: Recipient, reason: str, said: str
) -> None:
    admission = admitted(asked(one, recipient("bob@example.com", "m-2")))
    assert [message.message_id for message in admission.messages] == ["m-2"]
    refused = the_refusal(admission)
    assert (refused.reason, refused.stage, refused.at) == (reason, "validate", NOW)
    assert said in refused.explain
    assert refused.address_hash == address_hash(KEYS, one.address)


def test_an_id_that_is_no_id_is_not_given_back() -> None:
    assert the_refusal(admitted(asked(recipient(message_id="x" * 5_000)))).message_id is None


def test_an_id_of_128_characters_is_taken() -> None:
    assert len(admitted(asked(recipient(message_id="x" * 128))).messages) == 1


def test_a_suppressed_address_is_refused_with_the_reason() -> None:
    hashed = address_hash(KEYS, "ann@gmail.com")
    admission = admitted(asked(recipient("a.n.n+x@gmail.com")), suppressed={hashed: "complaint\r\n"})
    refused = the_refusal(admission)
    assert (refused.reason, refused.address_hash) == ("suppressed", hashed)
    assert "(complaint)" in refused.explain


def test_a_suppressed_trap_is_told_as_what_it_is() -> None:
    hashed = address_hash(KEYS, "ann@example.com")
    assert the_refusal(admitted(asked(recipient()), suppressed={hashed: "trap_hit"})).reason == "known_trap"


def test_a_suppressed_address_is_not_asked_for_its_variables() -> None:
    hashed = address_hash(KEYS, "ann@example.com")
    admission = admitted(asked(recipient(other="x")), suppressed={hashed: "hard_bounce"})
    assert the_refusal(admission).reason == "suppressed"


def test_role_accounts_are_refused_when_they_are_screened() -> None:
    request = asked(recipient("abuse@example.com"))
    assert admitted(request).refused == []
    refused = the_refusal(admitted(request, screens=Screens(KEYS)))
    assert refused.reason == "role_account"
    assert "recipients[0].address" in refused.explain


def under(**admission: object) -> Campaign:
    return msgspec.structs.replace(CAMPAIGN, admission=AdmissionPolicy(**admission))  # type: ignore[arg-type]


def screened(*recipients_: Recipient, suppressed: dict[str, str] | None = None, **admission: object) -> Admission:
    return admitted(asked(*recipients_), campaign=under(**admission), screens=Screens(KEYS), suppressed=suppressed)


def test_a_typo_is_refused_held_or_flagged_as_the_campaign_says() -> None:
    typo = recipient("ann@gmial.com")
    refused = screened(typo, typo_domain="refuse", disposable="off")
    assert [(one.reason, one.stage) for one in refused.refused] == [("typo_domain", "validate")]
    assert "recipients[0].address" in the_refusal(refused).explain
    assert "gmail.com" in the_refusal(refused).explain
    held = screened(typo, typo_domain="hold", disposable="off")
    assert (held.messages, held.refused, [one.reason for one in held.held]) == ([], [], ["typo_domain"])
    flagged = screened(typo, typo_domain="flag", disposable="off")
    assert [one.flags for one in flagged.messages] == [("typo_domain",)]
    assert screened(typo, typo_domain="off", disposable="off").messages[0].flags == ()


def test_the_most_severe_screen_wins() -> None:
    both = recipient("abuse@gmial.com")
    assert [one.reason for one in screened(both, typo_domain="refuse", role_account="hold").refused] == ["typo_domain"]
    assert [one.reason for one in screened(both, typo_domain="flag", role_account="hold").held] == ["role_account"]
    flags = screened(both, typo_domain="flag", role_account="flag").messages[0].flags
    assert {"typo_domain", "role_account"} <= set(flags)


def test_a_held_message_can_be_asked_for_again_alone_and_under_its_id() -> None:
    wanted = Recipient(
        address="ann@gmial.com", vars={"name": "Ann"}, source="form", opted_in_at=5, last_seen_at=6, released_by=None
    )
    request = asked(wanted, recipient("bob@example.com", "m-2"), not_before=NOW - 5, expires_at=NOW + 5)
    (held,) = admitted(request, campaign=under(typo_domain="hold"), screens=Screens(KEYS)).held

    assert held.message_id == derived_message_id("r-1", address_hash(KEYS, "ann@gmial.com"))
    assert held.address_hash == address_hash(KEYS, "ann@gmial.com")
    assert held.request == SendRequest(
        request_id="r-1",
        campaign="spring-sale",
        content="hello-1",
        recipients=[msgspec.structs.replace(wanted, message_id=held.message_id)],
        not_before=NOW - 5,
        expires_at=NOW + 5,
    )


def test_holding_twice_is_holding_once() -> None:
    typo = recipient("ann@gmial.com", None)
    assert screened(typo, typo_domain="hold").held == screened(typo, typo_domain="hold").held != []


def released(address: str) -> Recipient:
    return msgspec.structs.replace(recipient(address), released_by="operator:ann")


@pytest.mark.parametrize("does", ["refuse", "hold", "flag"])
def test_a_released_message_passes_the_screens_and_is_flagged(does: str) -> None:
    admission = screened(released("ann@gmial.com"), typo_domain=does, disposable="off")
    assert [one.flags for one in admission.messages] == [("typo_domain",)]


def test_nobody_at_a_suppressed_domain_gets_mail() -> None:
    suppressed = {domain_hash(KEYS, "old.example"): "bad_domain"}
    admission = screened(recipient("ann@OLD.example"), recipient("bob@x.old.example", "m-2"), suppressed=suppressed)

    assert (the_refusal(admission).message_id, the_refusal(admission).reason) == ("m-1", "suppressed")
    assert "(bad_domain)" in the_refusal(admission).explain
    assert [one.message_id for one in admission.messages] == ["m-2"]


@pytest.mark.parametrize(("reason", "told"), [("complaint", "suppressed"), ("trap_hit", "known_trap")])
def test_a_released_message_does_not_pass_a_suppression(reason: str, told: str) -> None:
    hashed = address_hash(KEYS, "ann@gmial.com")
    assert the_refusal(screened(released("ann@gmial.com"), suppressed={hashed: reason})).reason == told


def test_what_could_not_be_sent_anyway_is_refused_and_not_held() -> None:
    hashed = address_hash(KEYS, "ann@gmial.com")
    suppressed = screened(recipient("ann@gmial.com"), typo_domain="hold", suppressed={hashed: "complaint"})
    assert (the_refusal(suppressed).reason, suppressed.held) == ("suppressed", [])
    without = screened(recipient("ann@gmial.com", other="x"), typo_domain="hold")
    assert (the_refusal(without).reason, without.held) == ("missing_variable", [])


REPEATED = {
    "same_id_same_address": (recipient(), recipient(), 1, []),
    "same_id_same_mailbox_in_other_letters": (recipient("ann@gmail.com"), recipient("A.NN+x@gmail.com"), 1, []),
    "same_id_other_address": (recipient(), recipient("bob@example.com"), 1, ["duplicate_message_id"]),
    "other_id_same_address": (recipient(), recipient(message_id="m-2"), 2, []),
    "no_id_same_address": (recipient(message_id=None), recipient(message_id=None), 1, []),
    "no_id_other_address": (recipient(message_id=None), recipient("bob@example.com", None), 2, []),
    "same_bad_one_twice": (recipient("nope"), recipient("nope"), 0, ["bad_address"]),
    "bad_first_then_good_under_its_id": (recipient("nope"), recipient(), 0, ["bad_address", "duplicate_message_id"]),
}


@pytest.mark.parametrize(("one", "other", "messages", "reasons"), REPEATED.values(), ids=REPEATED.keys())
def test_repetitions_within_a_request(one: Recipient, other: Recipient, messages: int, reasons: list[str]) -> None:
    admission = admitted(asked(one, other))
    assert len(admission.messages) == messages
    assert [refused.reason for refused in admission.refused] == reasons


def test_the_first_of_two_with_one_id_wins() -> None:
    admission = admitted(asked(recipient(), recipient("bob@example.com")))
    assert admission.messages[0].address == "ann@example.com"
    assert "recipients[1].message_id" in the_refusal(admission).explain


def test_a_left_out_id_is_the_same_whenever_the_request_is_published() -> None:
    request = asked(recipient(message_id=None))
    one, other = admitted(request), admitted(request)
    assert one.messages[0].message_id == other.messages[0].message_id


def test_a_derived_id_is_what_the_documentation_says() -> None:
    hashed = address_hash(KEYS, "ann@example.com")
    assert derived_message_id("r-1", hashed) == admitted(asked(recipient(message_id=None))).messages[0].message_id
    assert re.fullmatch(r"[a-z2-7]{26}", derived_message_id("r-1", hashed))


@given(st.text(max_size=50), st.text(max_size=50))
def test_a_derived_id_travels_whole_in_a_return_path(request_id: str, hashed: str) -> None:
    message_id = derived_message_id(request_id, hashed)
    path = return_path(KEYS, campaign="c", message_id=message_id, address_hash=hashed, sent_at=NOW, domain="b.example")
    ticket = read_return_path(KEYS, path, now=NOW)
    assert isinstance(ticket, Ticket)
    assert ticket.message_id == message_id


def test_other_requests_and_other_addresses_have_other_derived_ids() -> None:
    assert len({derived_message_id(r, h) for r in ("r-1", "r-2") for h in ("a", "b")}) == 4


def test_a_refusal_does_not_repeat_what_a_stranger_made_long() -> None:
    request = DecodedRequest(
        request=SendRequest(
            request_id="r", campaign="c" * 100_000, content="x" * 100_000, recipients=[recipient(), recipient()]
        ),
        malformed=[],
    )
    refused = the_refusal(admitted(request, campaign=None, template=None))
    assert len(refused.campaign or "") + len(refused.explain) < 500


words = st.text(alphabet='qzjxkvw0.-_+@ é\r\n<>"', min_size=1, max_size=24)
recipients = st.lists(
    st.builds(
        Recipient,
        address=st.one_of(words, st.builds("{}@example.com".format, words), st.just("zqjx@example.com")),
        message_id=st.one_of(st.none(), st.sampled_from(["m-1", "m-2", "m-3", "", "x" * 129])),
        vars=st.dictionaries(st.sampled_from(["name", "n"]), st.one_of(words, st.integers()), max_size=2),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=400)
@given(recipients, st.booleans())
def test_every_recipient_is_accounted_for_once_and_no_address_is_told(
    given_recipients: list[Recipient], is_known: bool
) -> None:
    admission = admitted(asked(*given_recipients), campaign=CAMPAIGN if is_known else None, screens=Screens(KEYS))
    ids = [one.message_id for one in admission.messages]
    ids += [one.message_id for one in admission.held]
    ids += [
        one.message_id
        for one in admission.refused
        if one.message_id is not None and one.reason != "duplicate_message_id"
    ]
    assert len(ids) == len(set(ids))
    asked_ids = {one.message_id for one in given_recipients if one.message_id in {"m-1", "m-2", "m-3"}}
    assert asked_ids <= set(ids)
    told = " ".join(one.explain for one in admission.refused)
    assert not any(one.address in told for one in given_recipients if len(one.address) > 3)
    assert all(one.address_hash for one in admission.refused)


@settings(max_examples=200)
@given(recipients)
def test_what_is_admitted_holds_no_line_break(given_recipients: list[Recipient]) -> None:
    for message in admitted(asked(*given_recipients)).messages:
        assert not set(message.address + message.message_id) & set("\r\n\0")


def test_admitting_twice_is_admitting_once() -> None:
    request = asked("ann@example.com", "nope", recipient(message_id=None))
    assert admitted(request) == admitted(request)


@pytest.mark.parametrize("url", [None, "https://u.shop.example/u"], ids=["without", "with"])
def test_a_content_with_the_link_needs_a_campaign_that_makes_links(url: str | None) -> None:
    template = template_of(text="Leave: {{unsubscribe_url}}")
    campaign = msgspec.structs.replace(CAMPAIGN, unsubscribe_url=url)
    admission = admitted(asked("ann@example.com"), campaign=campaign, template=template)
    assert [one.reason for one in admission.refused] == ([] if url else ["no_unsubscribe_url"])
    assert len(admission.messages) == (url is not None)
