"""A template language of one construct: nothing is evaluated, nothing injects, everything wrong is named."""

import html

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.templates import BadContent, BadVariables, Rendered, Template, compile_content
from schemas.sending import Content, Var


def content(
    *, subject: str = "Hello", text: str = "", html: str = "", headers: dict[str, str] | None = None
) -> Content:
    return Content(campaign="c", content="hello-1", subject=subject, text=text, html=html, headers=headers or {})


def compiled(**fields: object) -> Template:
    template = compile_content(content(**fields))  # type: ignore[arg-type]
    assert isinstance(template, Template), template
    return template


def rendered(template: Template, **given: Var) -> Rendered:
    answer = template.render(given)
    assert isinstance(answer, Rendered), answer
    return answer


def refusal(template: Template, **given: Var) -> BadVariables:
    """What check says, and render says the same."""
    answer = template.check(given)
    assert isinstance(answer, BadVariables)
    assert template.render(given) == answer
    return answer


def test_variables_are_put_into_every_part() -> None:
    template = compiled(
        subject="Hello {{name}}", text="Dear {{ name }},", html="<p>{{name}}</p>", headers={"X-Who": "for {{name}}"}
    )
    answer = rendered(template, name="Ann")
    assert answer == Rendered("Hello Ann", "Dear Ann,", "<p>Ann</p>", {"X-Who": "for Ann"})


def test_all_variables_of_all_parts_are_known() -> None:
    template = compiled(subject="{{a}}", text="{{b}} {{a}}", html="{{c}}", headers={"X-D": "{{d}}"})
    assert template.variables == {"a", "b", "c", "d"}


def test_values_are_escaped_for_html_and_stand_as_they_are_elsewhere() -> None:
    template = compiled(subject="{{v}}", text="{{v}}", html='<a title="{{v}}">')
    answer = rendered(template, v="<b>\"Tom\" & 'Al'</b>")
    assert answer.subject == answer.text == "<b>\"Tom\" & 'Al'</b>"
    assert answer.html == '<a title="&lt;b&gt;&quot;Tom&quot; &amp; &#x27;Al&#x27;&lt;/b&gt;">'


def test_a_value_that_looks_like_a_variable_is_not_filled_in_again() -> None:
    template = compiled(text="{{a}}{{b}}", html="{{a}}{{b}}")
    answer = rendered(template, a="{{b}}", b="%(a)s {0} ${a}")
    assert answer.text == answer.html == "{{b}}%(a)s {0} ${a}"


NUMBERS = {"whole": (3, "3"), "broken": (9.5, "9.5"), "negative": (-1, "-1"), "large": (10**18, "1" + "0" * 18)}


@pytest.mark.parametrize(("value", "text"), NUMBERS.values(), ids=NUMBERS.keys())
def test_numbers_are_written_plainly(value: Var, text: str) -> None:
    assert rendered(compiled(text="{{n}}", html="{{n}}"), n=value).text == text


def test_more_values_than_needed_do_no_harm() -> None:
    assert rendered(compiled(text="{{a}}"), a="1", b="\r\n").text == "1"


def test_braces_that_start_no_variable_stand_as_they_are() -> None:
    css = "@media print{p{color:#000}} %s %(a)s {0} {name} $name }}"
    assert rendered(compiled(text=css, html=css)).html == css


UNKNOWN = {
    "arithmetic": "{{ 7*7 }}",
    "attribute": "{{a.b}}",
    "filter": "{{a|upper}}",
    "call": "{{f()}}",
    "section": "{{#a}}x{{/a}}",
    "partial": "{{> a}}",
    "triple": "{{{a}}}",
    "triple_at_the_end": "x{{{a}}",
    "lone_brace_around": "{{{a}}{",
    "comment": "{{! a}}",
    "empty": "{{}}",
    "digit_first": "{{1a}}",
    "hyphen": "{{first-name}}",
    "line_break": "{{a\n}}",
    "not_closed": "Dear {{name",
    "half_closed": "Dear {{name}",
    "letter_of_another_script": "{{näme}}",
    "too_long": "{{" + "a" * 65 + "}}",
    "dunder_attribute": "{{a.__class__}}",
}


@pytest.mark.parametrize("part", ["subject", "text", "html", "headers"])
@pytest.mark.parametrize("text", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_unknown_syntax_is_refused_with_the_name_of_the_field(text: str, part: str) -> None:
    one = content(headers={"X-Head": text}) if part == "headers" else content(**{part: text})
    answer = compile_content(one)
    assert isinstance(answer, BadContent)
    assert f"field {part}" in answer.explain
    assert "{{" in answer.explain or "control" in answer.explain


ALLOWED = [
    *("List-Unsubscribe", "List-Id", "Reply-To", "Feedback-ID", "X-Shop", "x-anything-at-all"),
    *("list-unsubscribe", "Precedence", "Auto-Submitted", "CFBL-Address"),
]


@pytest.mark.parametrize("name", ALLOWED)
def test_headers_of_the_allow_list_are_taken(name: str) -> None:
    assert rendered(compiled(headers={name: "value"})).headers == {name: "value"}


FORBIDDEN = [
    *("Bcc", "bcc", "BCC", "Cc", "To", "From", "Sender", "Subject", "Date", "Message-ID", "Message-Id", "Return-Path"),
    *("Received", "DKIM-Signature", "ARC-Seal", "ARC-Message-Signature", "Authentication-Results", "MIME-Version"),
    *("Content-Type", "Content-Transfer-Encoding", "Content-Disposition", "Resent-To", "Resent-From", "Errors-To"),
    *("Delivered-To", "Disposition-Notification-To", "X-Mailcordon-Campaign", "x-mailcordon-anything", "In-Reply-To"),
    *("", " ", "X Y", "X-A:", "X-A\r\nBcc", "Bcc ", "X-É", "X" * 80, "-X"),
]


@pytest.mark.parametrize("name", FORBIDDEN, ids=ascii)
def test_all_other_headers_are_refused(name: str) -> None:
    answer = compile_content(content(headers={name: "eve@evil.example"}))
    assert isinstance(answer, BadContent)
    assert answer.reason == "bad_header"
    assert "headers" in answer.explain


def test_a_header_twice_in_different_case_is_refused() -> None:
    answer = compile_content(content(headers={"Reply-To": "a@b.example", "reply-to": "c@d.example"}))
    assert isinstance(answer, BadContent)
    assert "twice" in answer.explain


CONTROLS = ["\r", "\n", "\r\n", "\0", "\x0b", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\ud800"]


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_a_control_character_in_a_subject_or_header_of_the_content_is_refused(control: str) -> None:
    for one in (content(subject=f"a{control}b"), content(headers={"X-A": f"a{control}Bcc: eve@evil.example"})):
        assert isinstance(compile_content(one), BadContent)


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
@pytest.mark.parametrize(
    "where",
    [
        {"subject": "Hi {{v}}"},
        {"headers": {"X-A": "{{v}}"}},
        {"headers": {"Reply-To": "{{v}}"}},
        {"headers": {"List-Unsubscribe": "<https://u.example/{{v}}>"}},
        {"subject": "{{v}}", "text": "{{v}}", "html": "{{v}}"},
    ],
    ids=["subject", "x_header", "reply_to", "list_unsubscribe", "everywhere"],
)
def test_a_control_character_in_a_header_variable_is_an_answer_and_never_sent(
    control: str, where: dict[str, object]
) -> None:
    answer = refusal(compiled(**where), v=f"x{control}Bcc: eve@evil.example")
    assert answer.reason == "bad_variable"
    assert "vars.v" in answer.explain
    assert "eve" not in answer.explain


def test_line_breaks_and_tabs_are_welcome_in_the_body() -> None:
    assert rendered(compiled(text="{{v}}", html="{{v}}"), v="a\r\n\tb\n").text == "a\r\n\tb\n"


@pytest.mark.parametrize("control", ["\0", "\x08", "\x1b", "\x7f", "\ud800"], ids=ascii)
def test_other_control_characters_are_not(control: str) -> None:
    assert refusal(compiled(text="{{v}}"), v=f"a{control}").reason == "bad_variable"


BREAKOUTS = {
    "out_of_the_brackets": ({"List-Unsubscribe": "<https://u.example/{{v}}>"}, "x>, <mailto:eve@evil.example"),
    "space_in_a_url": ({"List-Unsubscribe": "<https://u.example/{{v}}>"}, "a b"),
    "quote_in_a_list_id": ({"List-Id": '"{{v}}" <l.example>'}, 'a" <x'),
    "second_reply_address": ({"Reply-To": "{{v}}"}, "a@b.example, eve@evil.example"),
    "name_in_reply_to": ({"Reply-To": "{{v}}"}, "Ann <eve@evil.example>"),
    "group_in_reply_to": ({"Reply-To": "{{v}}"}, "all:a@b.example;"),
    "both_kinds": ({"Reply-To": "{{v}}", "List-Help": "<https://h.example/{{v}}>"}, "a,b"),
}


@pytest.mark.parametrize(("headers", "value"), BREAKOUTS.values(), ids=BREAKOUTS.keys())
def test_a_value_cannot_change_the_structure_of_its_header(headers: dict[str, str], value: str) -> None:
    assert refusal(compiled(headers=headers), v=value).reason == "bad_variable"


GOOD_VALUES = {
    "url": ({"List-Unsubscribe": "<{{v}}>"}, "https://u.example/a?b=c,d&e=%20;f"),
    "address": ({"Reply-To": "{{v}}"}, "ann.o'neil+x@shop.example"),
    "name": ({"Reply-To": "{{v}} <help@shop.example>"}, "Ann Müller"),
    "feedback_id": ({"Feedback-ID": "{{v}}:shop:promo:sender"}, "spring-1"),
    "free_text": ({"X-Note": "{{v}}"}, 'a <b>, "c"; d'),
}


@pytest.mark.parametrize(("headers", "value"), GOOD_VALUES.values(), ids=GOOD_VALUES.keys())
def test_ordinary_values_pass(headers: dict[str, str], value: str) -> None:
    answer = rendered(compiled(headers=headers), v=value)
    assert all(value in header for header in answer.headers.values())


def test_missing_variables_are_named_all_at_once() -> None:
    answer = refusal(compiled(subject="{{name}} {{city}}", html="{{zip}}"), name="Ann")
    assert answer.reason == "missing_variable"
    assert "city, zip" in answer.explain
    assert "name" not in answer.explain


def test_a_header_that_comes_out_empty_is_left_out() -> None:
    template = compiled(headers={"Reply-To": "{{r}}", "X-A": "a"})
    assert rendered(template, r="").headers == {"X-A": "a"}


LENGTHS = {
    "subject_of_900": ({"subject": "{{v}}"}, 900, True),
    "subject_of_901": ({"subject": "{{v}}"}, 901, False),
    "subject_twice": ({"subject": "{{v}}{{v}}"}, 451, False),
    "subject_with_text": ({"subject": "Hello {{v}}"}, 895, False),
    "header_of_901": ({"headers": {"X-A": "{{v}}"}}, 901, False),
    "body_of_10000": ({"text": "{{v}}"}, 10_000, True),
    "body_of_10001": ({"text": "{{v}}"}, 10_001, False),
    "many_times": ({"text": "{{v}}" * 101}, 10_000, False),
    "times_at_the_limit": ({"text": "{{v}}" * 100}, 10_000, True),
}


@pytest.mark.parametrize(("parts", "length", "good"), LENGTHS.values(), ids=LENGTHS.keys())
def test_lengths_are_bounded(parts: dict[str, object], length: int, good: bool) -> None:
    template = compiled(**parts)
    if good:
        rendered(template, v="x" * length)
    else:
        answer = refusal(template, v="x" * length)
        assert answer.reason == "bad_variable"
        assert "allowed" in answer.explain


def test_a_number_with_very_many_digits_is_over_long() -> None:
    assert refusal(compiled(subject="{{n}}"), n=10**1000).reason == "bad_variable"


values = st.one_of(st.text(max_size=30), st.integers(), st.floats(allow_nan=False, allow_infinity=False))


@settings(max_examples=500)
@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), values))
def test_check_and_render_always_agree_and_no_header_ever_holds_a_control_character(given_vars: dict[str, Var]) -> None:
    template = compiled(
        subject="{{a}} {{b}}", text="{{c}}", html="{{c}}{{d}}", headers={"X-A": "{{a}}", "List-Help": "<{{d}}>"}
    )
    answer = template.render(given_vars)
    assert (answer == template.check(given_vars)) is isinstance(answer, BadVariables)
    if isinstance(answer, Rendered):
        line = "".join([answer.subject, *answer.headers.values()])
        assert not any(ord(one) < 32 or 127 <= ord(one) < 160 or one in "\u2028\u2029" for one in line)
        assert answer.html == html.escape(str(given_vars["c"])) + html.escape(str(given_vars["d"]))


@settings(max_examples=500)
@given(st.text(alphabet="{}ab .\n", max_size=20))
def test_any_text_compiles_or_is_refused_and_what_compiles_renders_without_an_opening(text: str) -> None:
    template = compile_content(content(text=text))
    if isinstance(template, Template):
        answer = template.render(dict.fromkeys(template.variables, "x"))
        assert isinstance(answer, Rendered)
        assert "{{" not in answer.text
    else:
        assert "{{" in text


URL = "https://u.shop.example/u/abc?x=1&y=2"


def test_the_link_is_brought_by_the_sender_and_escaped_for_its_part() -> None:
    template = compiled(text="{{unsubscribe_url}}", html='<a href="{{unsubscribe_url}}">')
    assert template.needs_link
    assert template.variables == frozenset()
    answer = template.render({}, unsubscribe_url=URL)
    assert isinstance(answer, Rendered)
    assert (answer.text, answer.html) == (URL, '<a href="https://u.shop.example/u/abc?x=1&amp;y=2">')


def test_a_recipient_cannot_bring_the_link() -> None:
    for template in (compiled(text="{{unsubscribe_url}}"), compiled(text="no link at all")):
        answer = refusal(template, unsubscribe_url="https://evil.example")
        assert answer.reason == "bad_variable"
        assert "unsubscribe_url is a name of mailcordon's own" in answer.explain
        assert "evil" not in answer.explain


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"subject": "{{unsubscribe_url}}"}, "field subject"),
        ({"headers": {"X-Leave": "{{unsubscribe_url}}"}}, "field headers.X-Leave"),
        ({"headers": {"List-Unsubscribe": "<{{unsubscribe_url}}>"}}, "field headers.List-Unsubscribe"),
        ({"text": "{{unsubscribe_url}}" * 60, "html": "{{unsubscribe_url}}" * 60}, "more than 100 times"),
    ],
    ids=["subject", "header", "list-unsubscribe", "too-often"],
)
def test_the_link_stands_in_bodies_only(fields: dict[str, object], says: str) -> None:
    answer = compile_content(content(**fields))  # type: ignore[arg-type]
    assert isinstance(answer, BadContent)
    assert says in answer.explain


@pytest.mark.parametrize("value", ["yes", "List-Unsubscribe=Two-Clicks", "{{v}}"])
def test_one_click_is_the_only_thing_that_can_be_posted(value: str) -> None:
    answer = compile_content(content(headers={"List-Unsubscribe-Post": value}))
    assert isinstance(answer, BadContent)
    assert answer.reason == "bad_header"
    assert isinstance(
        compile_content(content(headers={"list-unsubscribe-post": "List-Unsubscribe=One-Click"})), Template
    )
